//! What nodes say to the controller, and what it answers, as JSON.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::BrokerId;
use crate::metadata::controller::{Heartbeat, HeartbeatAnswer};

/// What becomes of a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "heartbeat", rename_all = "kebab-case")]
pub enum HeartbeatReply {
    /// The controller has heard it.
    Heard(HeartbeatAnswer),
    /// Who was asked is not the controller, or not yet; who is, as far as it knows.
    NotController {
        /// Who leads the metadata.
        leader: Option<BrokerId>,
    },
    /// The process that speaks is not the one that is registered.
    Refused {
        /// In words, for the log.
        why: String,
    },
}

/// A heartbeat as it goes to another node.
pub fn encode(heartbeat: &Heartbeat) -> Vec<u8> {
    serde_json::to_vec(heartbeat).unwrap_or_default()
}

/// `None`: not a heartbeat of this release.
pub fn decode(body: &[u8]) -> Option<Heartbeat> {
    serde_json::from_slice(body).ok()
}

/// A reply as it goes to another node.
pub fn encode_reply(reply: &HeartbeatReply) -> Vec<u8> {
    serde_json::to_vec(reply).unwrap_or_default()
}

/// `None`: not a reply of this release.
pub fn decode_reply(body: &Bytes) -> Option<HeartbeatReply> {
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::ids::{BrokerEpoch, LeaderEpoch};
    use crate::metadata::BrokerProcess;
    use crate::metadata::testing::id;

    #[test]
    fn what_is_said_comes_out_as_it_went_in_and_other_bytes_say_nothing() {
        let heartbeat = Heartbeat {
            process: BrokerProcess { broker: BrokerId(2), epoch: BrokerEpoch(7) },
            image_index: 9,
            may_lead: false,
            wants_shutdown: true,
            not_begun: vec![(id(1, 0), LeaderEpoch(3))],
            unreachable: BTreeSet::from([BrokerId(3)]),
        };
        assert_eq!(decode(&encode(&heartbeat)), Some(heartbeat));
        let answer = HeartbeatAnswer {
            fenced: true,
            may_stop: false,
            revoked_at: 5,
            is_relieved: true,
            session_timeout: Some(Duration::from_secs(2)),
        };
        for reply in [
            HeartbeatReply::Heard(answer),
            HeartbeatReply::NotController { leader: Some(BrokerId(1)) },
            HeartbeatReply::Refused { why: "no".into() },
        ] {
            assert_eq!(decode_reply(&encode_reply(&reply).into()), Some(reply));
        }
        let of_before = br#"{"heartbeat":"heard","fenced":false,"may_stop":false,"revoked_at":5}"#;
        let reply = decode_reply(&Bytes::from_static(of_before));
        assert!(
            matches!(reply, Some(HeartbeatReply::Heard(answer)) if answer.session_timeout.is_none() && !answer.is_relieved)
        );
        for bytes in [&b""[..], b"{}", b"\xff\xff", b"[1]"] {
            assert_eq!((decode(bytes), decode_reply(&Bytes::from_static(bytes))), (None, None));
        }
    }
}
