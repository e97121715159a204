//! What a key is.

use std::time::Duration;

use super::super::Config;

/// One key. Its default is what [`Config::default`] shows.
#[derive(Clone, Copy)]
pub struct Key {
    /// Its name in the file, with dots: `journal.linger`.
    pub path: &'static str,
    /// What it is, for people: the text of `chronik keys` and of DescribeConfigs.
    pub about: &'static str,
    /// Legal values, for people.
    pub range: &'static str,
    /// Reads a text into the configuration, with all that follows from it; an error says what is wrong with
    /// the text.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
    /// What is in effect, in the text that `set` reads; of a secret only that there is one.
    pub show: fn(&Config) -> String,
    /// Whether its value must not be shown or said, not even where it is wrong.
    pub is_secret: bool,
}

impl Key {
    /// `journal.max_batch_bytes` -> `CHRONIK_JOURNAL_MAX_BATCH_BYTES`.
    pub fn environment(&self) -> String {
        environment_of(self.path)
    }
}

/// The variable that sets a key, under whichever of its names.
pub fn environment_of(name: &str) -> String {
    format!("CHRONIK_{}", name.replace('.', "_").to_uppercase())
}

pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// The longest time that Kafka's configurations can say.
pub(super) const MS_MAX: Duration = Duration::from_millis(i64::MAX as u64);
pub(super) const GIB: u64 = 1 << 30;
