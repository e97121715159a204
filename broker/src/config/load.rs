//! Where a configuration comes from: file, then environment, then command line, each over the one before.

use std::borrow::Cow;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::set::{self, Setting, name_of_variable, suggest_variable};
use super::{Config, SetError};

/// Where a value came from, for the message when it is wrong. A later one is over those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration file.
    File {
        /// Its path, as it was given.
        path: PathBuf,
        /// The line that sets the value, from 1.
        line: usize,
    },
    /// A variable of the environment, by its name.
    Environment(String),
    /// A flag, `--data-dir`.
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

/// Why a configuration cannot be put together. Nothing has been started then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is there and cannot be read, or is not there.
    #[error("cannot read the configuration {}: {why}", path.display())]
    Unreadable {
        /// Its path, as it was given.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The file is no TOML, or a value in it is a list, a date or a fraction.
    #[error("{}: {why}", path.display())]
    Syntax {
        /// Its path, as it was given.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// A key or its value is wrong.
    #[error("{place}: {error}")]
    Set {
        /// Where it was said.
        place: Box<Source>,
        /// What is wrong with it.
        error: SetError,
    },
    /// One source sets one key twice, under two of its names and to different values, and neither is over the
    /// other.
    #[error(
        "{}: {} = {}, and {}: {} = {}: two names of one key, and different values",
        first.place, first.name, first.value, second.place, second.name, second.value
    )]
    Contradiction {
        /// The earlier of them.
        first: Box<Said>,
        /// The later of them.
        second: Box<Said>,
    },
    /// Each value is legal, and together they are not; the text names the keys.
    #[error("{0}")]
    Inconsistent(String),
}

/// A value as it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub place: Source,
    pub name: String,
    pub value: String,
}

type Assignments = Vec<Said>;

/// Keys that set others.
const PRESETS: [&str; 4] = ["cluster.peers", "journal.profile", "memory.bytes", "server.connections"];

impl Config {
    /// Puts together the text of a file (with its path), environment variables and command line values.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with where it was said.
    pub fn assemble(
        file: Option<(PathBuf, &str)>,
        environment: impl Iterator<Item = (String, String)>,
        command_line: Vec<(String, String)>,
    ) -> Result<Config, ConfigError> {
        let mut said = Assignments::new();
        if let Some((path, text)) = file {
            read_file(&path, text, &mut said)?;
        }
        let mut variables: Vec<(String, String)> =
            environment.filter(|(name, _)| name.starts_with("CHRONIK_")).collect();
        variables.sort();
        for (variable, value) in variables {
            let place = Source::Environment(variable.clone());
            match name_of_variable(&variable) {
                Some(name) => said.push(Said { place, name: name.to_owned(), value }),
                None if FOREIGN.contains(&variable.as_str()) => {}
                None => {
                    let suggestion = suggest_variable(&variable);
                    let error = SetError::Unknown { key: variable, suggestion };
                    return Err(ConfigError::Set { place: Box::new(place), error });
                }
            }
        }
        for (name, value) in command_line {
            let place = Source::CommandLine(format!("--{}", name.replace('_', "-")));
            said.push(Said { place, name, value });
        }
        let mut settings = Vec::new();
        for said in said {
            let found = set::find(&said.name, &said.value);
            let found =
                found.map_err(|error| ConfigError::Set { place: Box::new(said.place.clone()), error })?;
            settings.extend(found.map(|setting| (said, setting)));
        }
        check_names_agree(&settings)?;
        // A preset for other keys goes first, wherever it stands.
        settings.sort_by_key(|(_, setting)| !PRESETS.contains(&setting.key.path));
        let mut config = Config::default();
        let mut overruled = Config::default();
        for (index, (said, setting)) in settings.iter().enumerate() {
            // What is said again by a later source has to be right all the same, and sets nothing: not the keys that
            // it is a preset for either.
            let path = setting.key.path;
            let is_overruled = settings[index + 1..].iter().any(|(_, later)| later.key.path == path);
            let into = if is_overruled { &mut overruled } else { &mut config };
            setting
                .apply(into)
                .map_err(|error| ConfigError::Set { place: Box::new(said.place.clone()), error })?;
            config.stated.insert(path, setting.name);
        }
        config.check().map_err(ConfigError::Inconsistent)?;
        Ok(config)
    }
}

/// Of two names of one key in the same source none is over the other.
fn check_names_agree(settings: &[(Said, Setting)]) -> Result<(), ConfigError> {
    for (index, (second, setting)) in settings.iter().enumerate() {
        let is_rival = |(first, other): &&(Said, Setting)| {
            std::mem::discriminant(&first.place) == std::mem::discriminant(&second.place)
                && other.key.path == setting.key.path
        };
        let Some((first, other)) = settings[..index].iter().find(is_rival) else { continue };
        let come_to = |setting: &Setting| {
            let mut config = Config::default();
            setting.apply(&mut config).map(|()| (setting.key.show)(&config))
        };
        if come_to(setting) != come_to(other) {
            let (first, second) = (Box::new(first.clone()), Box::new(second.clone()));
            return Err(ConfigError::Contradiction { first, second });
        }
    }
    Ok(())
}

/// Variables with our prefix that are not for the broker: tools around it use them.
const FOREIGN: &[&str] = &["CHRONIK_BIN", "CHRONIK_BOOTSTRAP", "CHRONIK_LOG", "CHRONIK_CONFIG"];

fn read_file(path: &std::path::Path, text: &str, into: &mut Assignments) -> Result<(), ConfigError> {
    let text: String = text.split_inclusive('\n').map(quoted_name).collect();
    let table = DeTable::parse(&text)
        .map_err(|error| ConfigError::Syntax { path: path.into(), why: what_is_wrong(&error, &text) })?;
    flatten("", table.get_ref(), path, &text, into)
}

/// With the lines around it, unless one of the file's is nobody's business.
fn what_is_wrong(error: &toml::de::Error, text: &str) -> String {
    if !text.contains("secret") {
        return error.to_string();
    }
    let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count()) + 1;
    format!("line {line}: it is no TOML, as the quotes around a value that are missing")
}

/// A line that sets a dotted name, with the name in quotes: `max.connections` may stand beside `max.connections.per.ip`,
/// of which the one would be a number and the other a table.
fn quoted_name(line: &str) -> Cow<'_, str> {
    let Some((name, value)) = line.split_once('=') else { return line.into() };
    let parts: Vec<&str> = name.split('.').map(str::trim).collect();
    let is_bare = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    match parts.len() > 1 && parts.iter().all(is_bare) {
        true => format!("\"{}\" ={value}", parts.join(".")).into(),
        false => line.into(),
    }
}

fn flatten(
    prefix: &str,
    table: &DeTable<'_>,
    path: &std::path::Path,
    text: &str,
    into: &mut Assignments,
) -> Result<(), ConfigError> {
    for (key, value) in table {
        let name =
            if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let line = text[..key.span().start].matches('\n').count() + 1;
        let place = Source::File { path: path.into(), line };
        let value = match value.get_ref() {
            DeValue::Table(inner) => {
                flatten(&name, inner, path, text, into)?;
                continue;
            }
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(_) | DeValue::Array(_) => {
                let error = SetError::Unknown { key: name, suggestion: None };
                return Err(ConfigError::Set { place: Box::new(place), error });
            }
        };
        into.push(Said { place, name, value });
    }
    Ok(())
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
