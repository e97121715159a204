//! Reading a scenario: typos are answered with the line and the key that was probably meant.

use std::ops::Range;

use broker::config::Config;
use reports::Verdict;

use super::dotted::broker_settings;
use super::model::{OneOrMore, Scenario};
use crate::{checker, probe};

/// A mistake in a scenario file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {what}{}", line.map(|line| format!(":{line}")).unwrap_or_default(),
    suggestion.as_ref().map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default())]
pub struct ScenarioError {
    pub file: String,
    pub line: Option<usize>,
    pub what: String,
    pub suggestion: Option<String>,
}

/// Reads the text of a scenario file; `file` is for messages.
pub fn parse(file: &str, text: &str) -> Result<Scenario, ScenarioError> {
    let mut scenario: Scenario = toml::from_str(text).map_err(|error| {
        let what = error.message().to_owned();
        let suggestion = suggestion_from(&what);
        ScenarioError {
            file: file.to_owned(),
            line: error.span().map(|span| line_of(text, span)),
            what: shortened(&what),
            suggestion,
        }
    })?;
    let most = scenario.cluster.nodes_drawn.all().into_iter().max();
    scenario.cluster.nodes = most.unwrap_or_default();
    check(file, text, &scenario)?;
    Ok(scenario)
}

fn line_of(text: &str, span: Range<usize>) -> usize {
    text[..span.start.min(text.len())].matches('\n').count() + 1
}

/// serde says ``unknown field `x`, expected one of `a`, `b` ``: the nearest of those is probably meant.
fn suggestion_from(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let given = quoted.next()?;
    nearest(given, quoted)
}

/// The candidate that `given` is most likely a misspelling of.
pub fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(given, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

/// The list of all that was expected is long; the suggestion says what matters.
fn shortened(message: &str) -> String {
    match message.split_once(", expected") {
        Some((head, _)) if message.starts_with("unknown ") => head.to_owned(),
        _ => message.lines().collect::<Vec<_>>().join(" "),
    }
}

/// What the types cannot say.
fn check(file: &str, text: &str, scenario: &Scenario) -> Result<(), ScenarioError> {
    let wrong = |key: &str, what: String, suggestion: Option<String>| {
        Err(ScenarioError { file: file.to_owned(), line: line_with(text, key), what, suggestion })
    };
    for (index, fault) in scenario.faults.iter().enumerate() {
        if let Err(error) = fault.check() {
            let line = text
                .lines()
                .enumerate()
                .filter(|(_, line)| line.trim() == "[[fault]]")
                .nth(index)
                .map(|(number, _)| number + 1);
            return Err(ScenarioError {
                file: file.to_owned(),
                line,
                what: error.to_string(),
                suggestion: None,
            });
        }
    }
    let cluster = &scenario.cluster;
    let drawn = cluster.nodes_drawn.all();
    if drawn.is_empty() || drawn.iter().any(|nodes| !matches!(nodes, 1 | 3 | 5)) {
        let what = format!("a cluster has 1, 3 or 5 nodes, and not {drawn:?}");
        return wrong("nodes", what, None);
    }
    if cluster.replication < 1 || i64::from(cluster.replication) > i64::from(cluster.nodes) {
        let what = format!("replication is from 1 to the number of nodes, which is {}", cluster.nodes);
        return wrong("replication", what, None);
    }
    if !(1..=cluster.replication).contains(&cluster.min_insync_replicas) {
        let what = format!("min_insync_replicas is from 1 to replication, which is {}", cluster.replication);
        return wrong("min_insync_replicas", what, None);
    }
    let fewest = drawn.iter().copied().min().unwrap_or_default();
    if let Some(fault) = scenario.faults.iter().find(|fault| fault.is_beyond(fewest)) {
        return wrong("node", format!("{fault}: there are {fewest} nodes"), None);
    }
    let load = &scenario.workload;
    if drawn.iter().all(|nodes| *nodes > 1) && (load.leavers > 0 || load.hostile.are_any()) {
        let what = "leavers and hostile clients keep to one node: nodes = 1";
        return wrong("nodes", what.into(), None);
    }
    if load.produce_through.is_some_and(|node| !(1..=cluster.nodes).contains(&node)) {
        let what = format!("there is no such node: there are {}", cluster.nodes);
        return wrong("produce_through", what, None);
    }
    if load.create_through_each && load.create_topic_every.is_none() {
        return wrong("create_through_each", "how often is said by create_topic_every".into(), None);
    }
    if cluster.topics == 0 || cluster.partitions < 1 {
        return wrong("partitions", "a cluster has at least one topic with one partition".into(), None);
    }
    if let Err((key, what)) = broker_settings(&cluster.config).try_for_each(|(key, value)| {
        Config::default().set(&key, &value).map_err(|error| (key.clone(), error.to_string()))
    }) {
        let last = key.rsplit('.').next().unwrap_or(&key);
        return wrong(last, what, None);
    }
    let load = &scenario.workload;
    if load.rate <= 0.0 || load.rate.is_nan() || load.batch == 0 {
        return wrong("rate", "rate and batch have to be more than zero".into(), None);
    }
    if load.size < 32 {
        return wrong("size", "a value has at least 32 bytes, to tell what it is".into(), None);
    }
    if matches!(&load.acks, OneOrMore::More(all) if all.is_empty())
        || matches!(&load.idempotent, OneOrMore::More(all) if all.is_empty())
        || matches!(&load.fetch_sessions, OneOrMore::More(all) if all.is_empty())
        || matches!(&load.group_protocols, OneOrMore::More(all) if all.is_empty())
    {
        return wrong("acks", "a list that is dealt out in turn needs an element".into(), None);
    }
    if let Some(compacted) = &load.compacted {
        let partitions = u32::try_from(cluster.partitions).unwrap_or(u32::MAX);
        if compacted.keepers == 0 || compacted.keys < compacted.keepers.saturating_mul(partitions) {
            let what = "every keeper needs a key in each partition: keys >= keepers * partitions";
            return wrong("keys", what.into(), None);
        }
        if compacted.rate <= 0.0 || compacted.rate.is_nan() || compacted.batch == 0 {
            return wrong("rate", "rate and batch have to be more than zero".into(), None);
        }
        if !(0.0..=1.0).contains(&compacted.min_cleanable_dirty_ratio) {
            return wrong("min_cleanable_dirty_ratio", "a ratio is from 0 to 1".into(), None);
        }
    }
    if let Some(swarm) = &scenario.swarm
        && (swarm.faults.0 > swarm.faults.1 || (swarm.families.is_empty() && swarm.kinds.is_empty()))
    {
        let what = "a swarm needs families or kinds to draw from, and faults = [fewest, most]";
        return wrong("[swarm]", what.into(), None);
    }
    if scenario.expect == Verdict::Pass
        && (scenario.expect_checker.is_some() || scenario.expect_text.is_some())
    {
        let key = if scenario.expect_checker.is_some() { "expect_checker" } else { "expect_text" };
        return wrong(key, format!("{key} is of an expected failure, and `expect` says pass"), None);
    }
    if let Some(checker) = &scenario.expect_checker
        && !checker::ALL.iter().any(|(name, _)| name == checker)
    {
        let meant = nearest(checker, checker::ALL.iter().map(|(name, _)| *name));
        return wrong("expect_checker", format!("unknown checker `{checker}`"), meant);
    }
    if scenario.liveness.events_max == Some(0) {
        return wrong("events_max", "a run without any event shows nothing".into(), None);
    }
    for required in &scenario.probes.required {
        if !probe::is_known(required) {
            let names = probe::Probe::ALL.iter().map(|probe| probe.name());
            return wrong("required", format!("unknown probe `{required}`"), nearest(required, names));
        }
    }
    if let Some(part) = &scenario.part
        && !crate::museum::is_part(part)
    {
        let names = crate::museum::part_names();
        let meant = nearest(part, names.into_iter());
        return wrong("part", format!("unknown part `{part}`"), meant);
    }
    Ok(())
}

/// The first line that sets `key`.
fn line_with(text: &str, key: &str) -> Option<usize> {
    let sets = |line: &str| {
        let line = line.trim();
        line == key || line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    text.lines().position(sets).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "name = \"x\"\nabout = \"y\"\nduration = \"10s\"\n";

    fn error(more: &str) -> ScenarioError {
        parse("x.toml", &format!("{SMALLEST}{more}")).unwrap_err()
    }

    #[test]
    fn the_smallest_scenario_is_a_story_and_a_duration() {
        let scenario = parse("x.toml", SMALLEST).unwrap();
        assert_eq!(scenario.expect, reports::Verdict::Pass);
        assert_eq!(scenario.cluster.nodes, 1);
        assert!(!scenario.hits_required());
    }

    #[test]
    fn a_seed_draws_how_many_nodes_there_are_and_what_fits_them() {
        let text = format!(
            "{SMALLEST}[cluster]\nnodes = [1, 3]\nreplication = 3\nmin_insync_replicas = 2\n[workload]\nleavers = 1\n"
        );
        let scenario = parse("x.toml", &text).unwrap();
        let drawn = |seed| {
            let own = scenario.of_seed(seed);
            let cluster = &own.cluster;
            (cluster.nodes, cluster.replication, cluster.min_insync_replicas, own.workload.leavers)
        };
        let all: std::collections::BTreeSet<_> = (0..50).map(drawn).collect();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [(1, 1, 1, 1), (3, 3, 2, 0)]);
        assert_eq!(drawn(7), drawn(7));
        let compacted = |more: &str| error(&format!("[workload.compacted]\n{more}\n"));
        assert!(compacted("keys = 5").what.contains("a key in each partition"));
        assert!(compacted("min_cleanable_dirty_ratio = 2.0").what.contains("from 0 to 1"));
        assert_eq!(compacted("keeper = 5").suggestion.as_deref(), Some("keepers"));
        assert!(error("[cluster]\nnodes = [1, 2]\n").what.contains("1, 3 or 5"));
    }

    #[test]
    fn a_mistyped_key_is_answered_with_its_line_and_the_likely_one() {
        for (text, line, suggestion) in [
            ("durations = \"3s\"\n", 4, "duration"),
            ("[workload]\nproducer = 3\n", 5, "producers"),
            ("[[fault]]\nkind = \"disk-stal\"\nnode = 1\n", 5, "disk-stall"),
            ("[swarm]\nfamilies = { dsk = 1 }\n", 5, "disk"),
            ("[probes]\nrequired = [\"torn tail\"]\n", 5, "torn tail cut"),
            ("part = \"fsync-without-dedline\"\n", 4, "fsync-without-deadline"),
            ("expect = \"freeze\"\nexpect_checker = \"standstil\"\n", 5, "standstill"),
            ("[knobs]\ndraw = [\"jornal\"]\n", 4, "journal"),
        ] {
            let error = error(text);
            assert_eq!(
                (error.line, error.suggestion.as_deref()),
                (Some(line), Some(suggestion)),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_fault_that_lacks_something_is_named_with_its_line() {
        let error =
            error("[[fault]]\nkind = \"kill\"\nnode = 1\n\n[[fault]]\nkind = \"disk-slow\"\nnode = 1\n");
        assert_eq!(error.line, Some(8), "{error}");
        assert!(error.what.contains("needs delay"), "{error}");
    }

    #[test]
    fn a_key_that_the_broker_does_not_know_is_refused() {
        let error = error("[cluster.config.journal]\nmax_batch_byte = 1\n");
        assert_eq!(error.line, Some(5), "{error}");
        assert!(error.to_string().contains("journal.max_batch_bytes"), "{error}");
    }

    #[test]
    fn the_example_of_the_guide_reads() {
        let guide = include_str!("../../../docs/scenarios.md");
        let example = guide.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let scenario = parse("docs/scenarios.md", example).unwrap();
        assert!(!scenario.knobs.is_empty() && scenario.machine.descriptors.is_some());
        assert_eq!(scenario.events_max(), 20_000_000);
    }

    /// In the sources of the checkers, so that a new one is not forgotten here.
    #[test]
    fn every_checker_can_be_expected() {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        for directory in ["checker", "run"] {
            let entries = std::fs::read_dir(sources.join(directory)).unwrap();
            for file in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
                let text = std::fs::read_to_string(file).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap_or_default();
                for before in ["Findings::of(\"", "checker: \""] {
                    found.extend(
                        text.split(before)
                            .skip(1)
                            .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())),
                    );
                }
            }
        }
        assert!(found.len() > 10, "{found:?}");
        for name in found {
            assert!(checker::ALL.iter().any(|(known, _)| *known == name), "{name} is not among checker::ALL");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "[cluster]\nnodes = 2\n",
            "[cluster]\nnodes = 3\nreplication = 4\n",
            "[cluster]\nnodes = 3\nreplication = 2\nmin_insync_replicas = 3\n",
            "[cluster]\nnodes = 3\n[workload]\nleavers = 1\n",
            "[[fault]]\nkind = \"kill\"\nnode = 2\n",
            "[workload]\nrate = 0.0\n",
            "[workload]\nacks = []\n",
            "[workload]\nsize = 3\n",
            "[swarm]\nfaults = [3, 5]\n",
            "[swarm]\nfaults = [5, 3]\nfamilies = { disk = 1 }\n",
            "expect_checker = \"standstill\"\n",
            "expect_text = \"fdatasync\"\n",
            "[liveness]\nevents_max = 0\n",
        ] {
            assert!(error(text).line.is_some(), "{text}");
        }
    }
}
