//! Where records are, as clients name it.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A partition by topic name. A topic that was deleted and created again under its name is another topic:
/// its second life is called `name#2`, which is no name that a broker would take.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl Ord for Place {
    /// Of two of the same topic the names are rarely compared: they share one.
    fn cmp(&self, other: &Place) -> Ordering {
        let topics = if Arc::ptr_eq(&self.topic, &other.topic) {
            Ordering::Equal
        } else {
            self.topic.cmp(&other.topic)
        };
        topics.then(self.partition.cmp(&other.partition))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Place) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// The name that a broker knows a topic by, whichever of its lives this is.
pub fn wire_name(topic: &str) -> &str {
    topic.split('#').next().unwrap_or(topic)
}
