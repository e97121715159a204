//! What a consumer subscribes to, as it says to who assigns: Kafka's ConsumerProtocolSubscription. Of that only the topics are read:
//!
//! ```text
//! version i16 | count i32, (topic string)* | ...
//! ```

use std::sync::Arc;

use bytes::{Buf, Bytes};

/// None where it is not of that form.
pub(super) fn topics(mut metadata: Bytes) -> Option<Vec<Arc<str>>> {
    let version = metadata.try_get_i16().ok()?;
    let count = metadata.try_get_i32().ok()?;
    if version < 0 || count < 0 {
        return None;
    }
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(metadata.try_get_i16().ok()?).ok()?;
        if length > metadata.len() {
            return None;
        }
        topics.push(Arc::from(std::str::from_utf8(&metadata.split_to(length)).ok()?));
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_what_is_no_subscription_is_not_guessed() {
        let cases: [(&[u8], Option<&[&str]>); 6] = [
            (b"\x00\x01\x00\x00\x00\x02\x00\x01a\x00\x02bc and more", Some(&["a", "bc"])),
            (b"\x00\x01\x00\x00\x00\x00", Some(&[])),
            (b"", None),
            (b"\x00\x01\x7f\xff\xff\xff\x00\x01a", None),
            (b"\x00\x01\x00\x00\x00\x01\x00\x05abc", None),
            (b"\x00\x01\x00\x00\x00\x01\x00\x01\xff", None),
        ];
        for (metadata, expected) in cases {
            let topics = topics(Bytes::copy_from_slice(metadata));
            let topics: Option<Vec<_>> =
                topics.as_ref().map(|topics| topics.iter().map(|topic| &**topic).collect());
            assert_eq!(topics.as_deref(), expected, "{metadata:?}");
        }
    }
}
