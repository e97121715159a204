//! Knobs: settings that each seed draws for itself, as operators do.
//!
//! What was tried with one configuration was tried with one configuration. A draw takes the small setting of the
//! testbed, the default that ships, or something between them and beyond, all of it legal: [`broker::config`] checks
//! the whole. Draws come from a stream of their own, so that they change nothing else that a seed decides.

use std::collections::BTreeMap;

use broker::config::Config;
use serde::Deserialize;

use super::dotted::broker_settings;
use crate::streams::Stream;

/// What was drawn or fixed, by key; the machine's begin with `machine.`.
pub type Settings = BTreeMap<String, String>;

/// Under this key stands how many nodes a seed drew.
pub const NODES: &str = "cluster.nodes";

/// Draws that do not fit together are drawn again so often.
const TRIES: usize = 200;

/// `[knobs]` of a scenario file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct Knobs {
    pub draw: Vec<Group>,
    /// Keys with the values to choose from; a single one is fixed.
    pub keys: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Journal,
    Log,
    Server,
    Machine,
}

impl Group {
    const ALL: [(Group, &'static str); 4] = [
        (Group::Journal, "journal"),
        (Group::Log, "log"),
        (Group::Server, "server"),
        (Group::Machine, "machine"),
    ];

    fn named(name: &str) -> Result<Group, String> {
        let found = Group::ALL.iter().find(|(_, known)| *known == name).map(|(group, _)| *group);
        found.ok_or_else(|| {
            format!("unknown group `{name}`, expected one of `journal`, `log`, `server`, `machine`, `all`")
        })
    }
}

impl TryFrom<toml::Table> for Knobs {
    type Error = String;

    fn try_from(mut table: toml::Table) -> Result<Knobs, String> {
        let draw = match table.remove("draw") {
            None => Vec::new(),
            Some(toml::Value::String(all)) if all == "all" => Group::ALL.map(|(group, _)| group).to_vec(),
            Some(toml::Value::String(one)) => vec![Group::named(&one)?],
            Some(toml::Value::Array(names)) => names
                .iter()
                .map(|name| Group::named(name.as_str().unwrap_or_default()))
                .collect::<Result<_, _>>()?,
            Some(other) => return Err(format!("draw is \"all\" or a list of groups, not {other}")),
        };
        let mut keys = BTreeMap::new();
        flatten("", &table, &mut keys);
        let knobs = Knobs { draw, keys };
        knobs.check()?;
        Ok(knobs)
    }
}

fn flatten(prefix: &str, table: &toml::Table, keys: &mut BTreeMap<String, Vec<String>>) {
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => flatten(&path, inner, keys),
            toml::Value::Array(choices) => {
                keys.insert(path, choices.iter().map(text).collect());
            }
            single => {
                keys.insert(path, vec![text(single)]);
            }
        }
    }
}

/// A setting and what is drawn for it, beside what the testbed has and what ships.
struct Knob {
    group: Group,
    key: &'static str,
    choices: &'static [&'static str],
}

const fn knob(group: Group, key: &'static str, choices: &'static [&'static str]) -> Knob {
    Knob { group, key, choices }
}

/// In this order: a profile comes before the numbers that it is a preset of.
const KNOBS: [Knob; 23] = [
    knob(Group::Journal, "journal.profile", &["low-latency", "balanced", "throughput"]),
    knob(Group::Journal, "journal.file_bytes", &["1 MiB", "2 MiB", "4 MiB", "16 MiB"]),
    knob(Group::Journal, "journal.max_batch_records", &["1", "8", "500"]),
    knob(Group::Journal, "journal.max_batch_bytes", &["64 KiB", "128 KiB", "512 KiB", "2 MiB"]),
    knob(Group::Journal, "journal.queue_records", &["64", "1000"]),
    knob(Group::Journal, "journal.queue_bytes", &["1 MiB", "2 MiB", "16 MiB"]),
    knob(Group::Journal, "journal.linger", &["0ms", "1ms", "5ms", "20ms"]),
    knob(Group::Journal, "journal.checkpoint_bytes", &["1 MiB", "2 MiB", "8 MiB"]),
    knob(Group::Log, "log.segment_bytes", &["64 KiB", "256 KiB", "4 MiB"]),
    knob(Group::Log, "log.segment_age", &["1s", "7s"]),
    knob(Group::Log, "log.index_interval_bytes", &["256 B", "1 KiB", "64 KiB"]),
    knob(Group::Log, "topics.max_batch_bytes", &["16 KiB", "256 KiB"]),
    knob(Group::Server, "server.requests_in_flight", &["32", "128"]),
    knob(Group::Server, "server.request_bytes", &["256 KiB", "2 MiB"]),
    knob(Group::Server, "server.request_bytes_in_flight", &["1 MiB", "4 MiB", "64 MiB"]),
    knob(Group::Server, "server.responses_queued", &["1", "3"]),
    knob(Group::Server, "server.produce_deadline", &["1s", "5s"]),
    knob(Group::Machine, "machine.disk_mb_per_s", &["100", "300", "1000", "3000"]),
    knob(Group::Machine, "machine.disk_sync", &["30us", "110us", "1ms", "4ms"]),
    knob(Group::Machine, "machine.runtime_threads", &["1", "2", "3", "4"]),
    knob(Group::Machine, "machine.poll_time", &["1us", "5us", "20us"]),
    knob(Group::Machine, "machine.descriptors", &["100", "100", "1024", "65536"]),
    knob(Group::Journal, "metadata.snapshot_entries", &["1", "5", "100"]),
];

impl Knobs {
    pub fn is_empty(&self) -> bool {
        self.draw.is_empty() && self.keys.is_empty()
    }

    fn check(&self) -> Result<(), String> {
        for (key, values) in &self.keys {
            if values.is_empty() {
                return Err(format!("{key}: a list to choose from needs an element"));
            }
            for value in values {
                match key.strip_prefix("machine.") {
                    Some(_) => machine_value(key, value)?,
                    None => Config::default().set(key, value).map_err(|error| error.to_string())?,
                }
            }
        }
        Ok(())
    }

    /// What this seed has. `fits` says whether a node starts with it: what it refuses is drawn again.
    pub fn settings(&self, seed: u64, fits: impl Fn(&Settings) -> bool) -> Settings {
        if self.is_empty() {
            return Settings::new();
        }
        let mut stream = Stream::new(seed, "knobs");
        let mut drawn = self.draw(&mut stream);
        for _ in 1..TRIES {
            if fits(&drawn) {
                return drawn;
            }
            drawn = self.draw(&mut stream);
        }
        // The scenario's own values leave no room: they are what it wants.
        drawn.retain(|key, _| self.keys.contains_key(key));
        drawn
    }

    fn draw(&self, stream: &mut Stream) -> Settings {
        let mut drawn = Settings::new();
        for knob in KNOBS.iter().filter(|knob| self.draw.contains(&knob.group)) {
            // Every knob takes its two draws, whatever comes of them.
            let (which, choice) = (stream.below(4), stream.below(knob.choices.len() as u64));
            let value = match which {
                // As the testbed has it.
                0 => continue,
                1 => shipped(knob.key),
                _ => None,
            };
            let value = value.unwrap_or_else(|| knob.choices[choice as usize].to_owned());
            drawn.insert(knob.key.to_owned(), value);
        }
        for (key, choices) in &self.keys {
            drawn.insert(key.clone(), choices[stream.below(choices.len() as u64) as usize].clone());
        }
        drawn
    }
}

/// The default that ships; machines have none.
fn shipped(key: &str) -> Option<String> {
    let known = broker::config::KEYS.iter().find(|known| known.path == key)?;
    Some((known.show)(&Config::default()))
}

/// Puts what was drawn into a node's configuration, then the scenario's own keys.
pub fn apply(settings: &Settings, own: &toml::Table, config: &mut Config) {
    // Checked when the scenario was loaded. A profile is a preset: what else is drawn overrides it.
    let broker = || settings.iter().filter(|(key, _)| !key.starts_with("machine.") && *key != NODES);
    for (key, value) in broker().filter(|(key, _)| *key == "journal.profile") {
        let _ = config.set(key, value);
    }
    for (key, value) in broker().filter(|(key, _)| *key != "journal.profile") {
        let _ = config.set(key, value);
    }
    for (key, value) in broker_settings(own) {
        let _ = config.set(&key, &value);
    }
}

fn machine_value(key: &str, value: &str) -> Result<(), String> {
    let fine = match key {
        "machine.disk_sync" | "machine.poll_time" => value.parse::<crate::fault::Span>().is_ok(),
        "machine.disk_mb_per_s"
        | "machine.runtime_threads"
        | "machine.descriptors"
        | "machine.disk_bytes" => value.parse::<u64>().is_ok_and(|number| number > 0),
        _ => {
            return Err(format!(
                "unknown key `{key}`, expected one of `machine.disk_sync`, `machine.poll_time`, `machine.disk_mb_per_s`, \
                 `machine.runtime_threads`, `machine.descriptors`, `machine.disk_bytes`"
            ));
        }
    };
    if fine { Ok(()) } else { Err(format!("{key} = {value}: not a value of that key")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn knobs(text: &str) -> Result<Knobs, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn every_choice_of_every_knob_is_legal_by_itself() {
        for knob in &KNOBS {
            for value in knob.choices {
                let legal = match knob.group {
                    Group::Machine => machine_value(knob.key, value),
                    _ => Config::default().set(knob.key, value).map_err(|error| error.to_string()),
                };
                assert_eq!(legal, Ok(()), "{} = {value}", knob.key);
            }
            assert_eq!(shipped(knob.key).is_some(), knob.group != Group::Machine, "{}", knob.key);
        }
    }

    #[test]
    fn a_draw_is_its_seed_and_seeds_differ() {
        let all = knobs("draw = \"all\"").unwrap();
        let drawn = |seed| all.settings(seed, |_| true);
        assert_eq!(drawn(7), drawn(7));
        let different: BTreeSet<Vec<(String, String)>> =
            (0..50).map(|seed| drawn(seed).into_iter().collect()).collect();
        assert_eq!(different.len(), 50);
    }

    #[test]
    fn shipped_defaults_small_settings_and_others_are_all_drawn() {
        let journal = knobs("draw = [\"journal\"]").unwrap();
        let seen: BTreeSet<Option<String>> = (0..100)
            .map(|seed| journal.settings(seed, |_| true).get("journal.queue_bytes").cloned())
            .collect();
        for wanted in [None, Some("67108864".to_owned()), Some("1 MiB".to_owned())] {
            assert!(seen.contains(&wanted), "{wanted:?} in {seen:?}");
        }
        assert!((0..100).all(|seed| !journal.settings(seed, |_| true).contains_key("log.segment_bytes")));
    }

    #[test]
    fn what_does_not_fit_together_is_drawn_again() {
        let journal = knobs("draw = [\"journal\"]").unwrap();
        let small =
            |settings: &Settings| settings.get("journal.linger").is_some_and(|linger| linger == "20ms");
        assert!((0..20).all(|seed| small(&journal.settings(seed, small))));
    }

    #[test]
    fn a_key_is_fixed_or_chosen_from_a_list() {
        let fixed = knobs("journal.linger = \"5ms\"\nmachine.runtime_threads = [1, 3]").unwrap();
        let threads: BTreeSet<String> = (0..20)
            .map(|seed| {
                let settings = fixed.settings(seed, |_| true);
                assert_eq!(settings["journal.linger"], "5ms");
                settings["machine.runtime_threads"].clone()
            })
            .collect();
        assert_eq!(threads.into_iter().collect::<Vec<_>>(), ["1", "3"]);
    }

    #[test]
    fn what_is_no_knob_is_refused() {
        for (text, what) in [
            ("draw = [\"jurnal\"]", "unknown group `jurnal`"),
            ("draw = 3", "list of groups"),
            ("journal.lingr = \"5ms\"", "journal.linger"),
            ("journal.linger = \"5 parsecs\"", "5 parsecs"),
            ("machine.disk = 5", "unknown key `machine.disk`"),
            ("log.segment_bytes = []", "needs an element"),
        ] {
            let error = knobs(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
