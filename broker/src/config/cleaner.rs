//! What happens to old data, and how compacted logs are cleaned, where topics do not say.

use std::fmt;
use std::time::Duration;

/// What happens to old data: Kafka's `cleanup.policy`. Neither: all of it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// It is deleted after retention.
    pub delete: bool,
    /// Of each key the last record is kept.
    pub compact: bool,
}

impl std::str::FromStr for CleanupPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<CleanupPolicy, String> {
        let mut policy = CleanupPolicy { delete: false, compact: false };
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "delete" => policy.delete = true,
                "compact" => policy.compact = true,
                _ => return Err("String must be one of: compact, delete".to_owned()),
            }
        }
        Ok(policy)
    }
}

impl fmt::Display for CleanupPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.compact, self.delete) {
            (true, true) => "compact,delete",
            (true, false) => "compact",
            (false, true) => "delete",
            (false, false) => "",
        })
    }
}

/// How the node cleans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanerConfig {
    /// Kafka's `log.cleanup.policy`.
    pub policy: CleanupPolicy,
    /// Kafka's `log.cleaner.min.cleanable.ratio`, in millionths.
    pub min_dirty_ppm: u32,
    /// Kafka's `log.cleaner.min.compaction.lag.ms`.
    pub min_lag: Duration,
    /// Kafka's `log.cleaner.max.compaction.lag.ms`; `None`: no bound.
    pub max_lag: Option<Duration>,
    /// Kafka's `log.cleaner.delete.retention.ms`.
    pub delete_retention: Duration,
    /// Most memory for the keys of what is cleaned.
    pub memory_bytes: usize,
    /// What cleaning reads and writes a second.
    pub bytes_per_s: u64,
    /// A partition that was cleaned is not cleaned again sooner.
    pub pause: Duration,
}

impl Default for CleanerConfig {
    fn default() -> CleanerConfig {
        CleanerConfig {
            policy: CleanupPolicy { delete: true, compact: false },
            min_dirty_ppm: 500_000,
            min_lag: Duration::ZERO,
            max_lag: None,
            delete_retention: Duration::from_secs(86_400),
            memory_bytes: 128 << 20,
            bytes_per_s: 64 << 20,
            pause: Duration::from_secs(15),
        }
    }
}
