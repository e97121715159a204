//! Where a configuration comes from: file, then environment, then command line, each over the one before.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::keys::suggest;
use super::{Config, KEYS, SetError};

/// Where a value came from, for the message when it is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File { path: PathBuf, line: usize },
    Environment(String),
    CommandLine(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::CommandLine(flag) => write!(f, "{flag}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}: {why}", path.display())]
    Unreadable { path: PathBuf, why: String },
    #[error("{}: {why}", path.display())]
    Syntax { path: PathBuf, why: String },
    #[error("{place}: {error}")]
    Set { place: Box<Source>, error: SetError },
    #[error("{0}")]
    Inconsistent(String),
}

type Assignments = Vec<(Source, String, String)>;

/// Keys that set others.
const PRESETS: [&str; 3] = ["journal.profile", "memory.bytes", "server.connections"];

impl Config {
    /// Puts together the text of a file (with its path), environment variables and command line values.
    pub fn assemble(
        file: Option<(PathBuf, &str)>,
        environment: impl Iterator<Item = (String, String)>,
        command_line: Vec<(String, String)>,
    ) -> Result<Config, ConfigError> {
        let mut assignments = Assignments::new();
        if let Some((path, text)) = file {
            read_file(&path, text, &mut assignments)?;
        }
        let mut variables: Vec<(String, String)> =
            environment.filter(|(name, _)| name.starts_with("CHRONIK_")).collect();
        variables.sort();
        for (name, value) in variables {
            let place = Source::Environment(name.clone());
            match KEYS.iter().find(|key| key.environment() == name) {
                Some(key) => assignments.push((place, key.path.to_string(), value)),
                None if FOREIGN.contains(&name.as_str()) => {}
                None => {
                    let guess = name.trim_start_matches("CHRONIK_").to_lowercase();
                    let suggestion = suggest(&guess).and_then(|path| {
                        KEYS.iter().find(|key| key.path == path).map(super::keys::Key::environment)
                    });
                    let error = SetError::Unknown { key: name, suggestion };
                    return Err(ConfigError::Set { place: Box::new(place), error });
                }
            }
        }
        for (path, value) in command_line {
            assignments.push((Source::CommandLine(format!("--{}", path.replace('_', "-"))), path, value));
        }
        // A preset for other keys goes first, wherever it stands.
        assignments.sort_by_key(|(_, path, _)| !PRESETS.contains(&path.as_str()));
        let mut config = Config::default();
        let mut overruled = Config::default();
        for (index, (source, path, value)) in assignments.iter().enumerate() {
            // What is said again by a later source has to be right all the same, and sets nothing: not the keys that
            // it is a preset for either.
            let is_overruled = assignments[index + 1..].iter().any(|(_, later, _)| later == path);
            let config = if is_overruled { &mut overruled } else { &mut config };
            config
                .set(path, value)
                .map_err(|error| ConfigError::Set { place: Box::new(source.clone()), error })?;
        }
        config.check().map_err(ConfigError::Inconsistent)?;
        Ok(config)
    }
}

/// Variables with our prefix that are not for the broker: tools around it use them.
const FOREIGN: &[&str] = &["CHRONIK_BIN", "CHRONIK_LOG", "CHRONIK_CONFIG"];

fn read_file(path: &std::path::Path, text: &str, into: &mut Assignments) -> Result<(), ConfigError> {
    let table = DeTable::parse(text)
        .map_err(|error| ConfigError::Syntax { path: path.into(), why: error.to_string() })?;
    flatten("", table.get_ref(), path, text, into)
}

fn flatten(
    prefix: &str,
    table: &DeTable<'_>,
    path: &std::path::Path,
    text: &str,
    into: &mut Assignments,
) -> Result<(), ConfigError> {
    for (key, value) in table {
        let full =
            if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let line = text[..key.span().start].matches('\n').count() + 1;
        let place = Source::File { path: path.into(), line };
        let value = match value.get_ref() {
            DeValue::Table(inner) => {
                flatten(&full, inner, path, text, into)?;
                continue;
            }
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(_) | DeValue::Array(_) => {
                let error = SetError::Unknown { key: full, suggestion: None };
                return Err(ConfigError::Set { place: Box::new(place), error });
            }
        };
        into.push((place, full, value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> Result<Config, ConfigError> {
        Config::assemble(Some((PathBuf::from("chronik.toml"), text)), std::iter::empty(), Vec::new())
    }

    #[test]
    fn an_unknown_key_names_its_line_and_a_likely_one() {
        let error = from_file("node_id = 3\n[journal]\nmax_batch_byte = 5\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "chronik.toml:3: unknown key 'journal.max_batch_byte': did you mean 'journal.max_batch_bytes'?"
        );
    }

    #[test]
    fn the_profile_gives_way_to_single_keys_wherever_it_stands() {
        let config = from_file("[journal]\nqueue_records = 77\nprofile = \"throughput\"\n").unwrap();
        assert_eq!(config.journal.queue_records, 77);
        assert_eq!(config.journal.max_batch_records, 20_000);
    }

    #[test]
    fn command_line_beats_environment_beats_file() {
        let config = Config::assemble(
            Some((PathBuf::from("f"), "node_id = 1\nlisten = \"a:1\"\nadmin = \"a:1\"")),
            [("CHRONIK_LISTEN".to_string(), "b:2".to_string()), ("CHRONIK_NODE_ID".into(), "2".into())]
                .into_iter(),
            vec![("node_id".into(), "3".into())],
        )
        .unwrap();
        assert_eq!((config.node_id.0, config.listen.as_str(), config.admin.as_str()), (3, "b:2", "a:1"));
    }

    #[test]
    fn what_is_said_again_elsewhere_sets_nothing() {
        let small = "memory.bytes = \"64 MiB\"";
        let over = |file: &str, value: &str| {
            let said = vec![("memory.bytes".to_owned(), value.to_owned())];
            Config::assemble(Some((PathBuf::from("f"), file)), std::iter::empty(), said)
        };
        assert_eq!(over(small, "1 GiB").unwrap(), over("", "1 GiB").unwrap());
        assert!(over("memory.bytes = \"much\"", "1 GiB").is_err(), "still wrong where it is overruled");
    }

    #[test]
    fn an_unknown_variable_is_an_error() {
        let set = [("CHRONIK_LISTN".to_string(), "b:2".to_string())].into_iter();
        let error = Config::assemble(None, set, Vec::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "environment CHRONIK_LISTN: unknown key 'CHRONIK_LISTN': did you mean 'CHRONIK_LISTEN'?"
        );
    }

    #[test]
    fn keys_that_contradict_each_other_are_refused() {
        let error = from_file("journal.file_bytes = \"1 MiB\"").unwrap_err();
        assert!(
            error.to_string().starts_with("journal.file_bytes (1048576) must be at least twice"),
            "{error}"
        );
        let small = "journal.file_bytes = \"1 MiB\"\njournal.max_batch_bytes = \"256 KiB\"\n";
        let error = from_file(small).unwrap_err().to_string();
        assert!(error.contains("twice topics.max_batch_bytes (1048576): a batch has to fit"), "{error}");
        assert!(from_file(&format!("{small}topics.max_batch_bytes = \"512 KiB\"\n")).is_ok());
    }

    #[test]
    fn no_address_has_all_connections_unless_it_is_said() {
        let of = |text: &str| from_file(text).unwrap().server.connections_per_address;
        assert_eq!(of("server.connections = 40\n"), 30);
        let said = "server.connections_per_address = 40\nserver.connections = 40\n";
        assert_eq!(of(said), 40, "wherever it stands");
    }

    #[test]
    fn connections_and_segments_leave_descriptors_to_the_others() {
        let after = |limit: u64| {
            let mut config = Config::default();
            config.share_descriptors(limit);
            (config.server.connections, config.server.connections_per_address, config.log.open_files)
        };
        assert_eq!(after(u64::MAX), (10_000, 7_500, 1_024), "what is set is enough");
        assert_eq!(after(1_024), (512, 384, 256));
        assert_eq!(after(2), (1, 1, 1));
    }
}
