//! Offsets that were looked up.

use std::sync::Arc;

use super::place::Place;
use super::progress_monitor::At;

/// What a look-up of offsets asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupQuery {
    Earliest,
    Latest,
    MaxTimestamp,
    /// The first record that is not older, in milliseconds.
    Timestamp(i64),
}

/// One answered look-up (ListOffsets); offset and timestamp are -1 where no record answers it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    pub client: Arc<str>,
    pub place: Place,
    pub query: LookupQuery,
    pub sent: At,
    pub at: At,
    pub offset: i64,
    pub timestamp: i64,
}
