//! Setting keys from text, under our names and Kafka's, and what is said where that cannot be.

use super::keys::environment_of;
use super::values::SetError;
use super::{Config, KEYS, Key, kafka};

/// What a name and a value come to.
pub(super) struct Setting {
    pub key: &'static Key,
    /// The name that it was said under.
    pub name: &'static str,
    /// In the text of our key.
    pub value: String,
}

/// Finds the key behind a name, ours or Kafka's. `None`: it says what holds anyway.
pub(super) fn find(name: &str, value: &str) -> Result<Option<Setting>, SetError> {
    if let Some(key) = KEYS.iter().find(|key| key.path == name) {
        return Ok(Some(Setting { key, name: key.path, value: value.to_owned() }));
    }
    if let Some(known) = kafka::find(name) {
        let read = known.read(value)?;
        return Ok(read.map(|(key, value)| Setting { key, name: known.name, value }));
    }
    match kafka::refusal(name) {
        Some(why) => Err(SetError::Refused { key: name.to_owned(), why: why.to_owned() }),
        None => Err(SetError::Unknown { key: name.to_owned(), suggestion: suggest(name) }),
    }
}

/// The name that a variable is for.
pub(super) fn name_of_variable(variable: &str) -> Option<&'static str> {
    all_names().find(|name| environment_of(name) == variable)
}

fn all_names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.path).chain(kafka::all_names())
}

/// The known name that looks most like this one.
pub(super) fn suggest(name: &str) -> Option<String> {
    likeliest(all_names().map(str::to_owned), name)
}

/// The variable that looks most like this one.
pub(super) fn suggest_variable(name: &str) -> Option<String> {
    likeliest(all_names().map(environment_of), name)
}

fn likeliest(names: impl Iterator<Item = String>, wanted: &str) -> Option<String> {
    let alike = |name: &String| strsim::jaro_winkler(name, wanted);
    let best = names.max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    (alike(&best) > 0.75).then_some(best)
}

impl Setting {
    /// Sets it. What is wrong is said of the name that it was said under.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), SetError> {
        (self.key.set)(config, &self.value).map_err(|why| SetError::Invalid {
            key: self.name,
            value: if self.key.is_secret { "(hidden)".to_owned() } else { self.value.clone() },
            why,
            range: self.key.range,
        })
    }
}

impl Config {
    /// Sets one key from its text.
    ///
    /// # Errors
    ///
    /// Nothing is called `name`, or `value` is not legal for it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SetError> {
        find(name, value)?.map_or(Ok(()), |setting| setting.apply(self))
    }

    /// The configuration in effect, as TOML lines.
    pub fn effective(&self) -> String {
        KEYS.iter().map(|key| format!("{} = {}\n", key.path, quoted(&(key.show)(self)))).collect()
    }
}

fn quoted(value: &str) -> String {
    if value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok() {
        value.to_string()
    } else {
        format!("{value:?}")
    }
}
