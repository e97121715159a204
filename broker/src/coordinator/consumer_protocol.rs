//! What consumers of the classic protocol say to who assigns, and are told of it: Kafka's ConsumerProtocolSubscription and
//! ConsumerProtocolAssignment. Pure.
//!
//! ```text
//! subscription:  version i16 | (topic string)* | user data bytes? | since 1: partitions that it has | since 2: generation i32
//!                | since 3: rack string?
//! assignment:    version i16 | partitions | user data bytes?
//! partitions:    (topic string | (partition i32)*)*
//! ```
//!
//! Before a list stands its number of elements, an i32. User data is for who assigns. What came with a later version may be missing in what
//! a client writes: it is then as before that version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What the coordinator calls the protocol by whose forms consumers speak among themselves.
pub const PROTOCOL_TYPE: &str = "consumer";

const OWNED_SINCE: i16 = 1;
const GENERATION_SINCE: i16 = 2;
const RACK_SINCE: i16 = 3;
/// Later ones begin as this one does.
const LATEST: i16 = 3;

/// Partitions by the names of their topics.
pub type NamedPartitions = BTreeMap<Arc<str>, BTreeSet<i32>>;

/// What a consumer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerSubscription {
    /// The version that it is written in, and what it is told with.
    pub version: i16,
    /// The topics that it reads.
    pub topics: Vec<Arc<str>>,
    /// What it has, and would like to keep. Nothing of who gives up all it has before it joins.
    pub owned: NamedPartitions,
    /// Where it stands.
    pub rack: Option<Arc<str>>,
}

impl ConsumerSubscription {
    /// None where it is not of that form.
    pub fn read(mut metadata: Bytes) -> Option<ConsumerSubscription> {
        let version = metadata.try_get_i16().ok().filter(|version| *version >= 0)?;
        let topics = names(&mut metadata)?;
        let mut read = ConsumerSubscription { version, topics, ..ConsumerSubscription::default() };
        skip_bytes(&mut metadata)?;
        if version >= OWNED_SINCE && metadata.has_remaining() {
            read.owned = partitions(&mut metadata)?;
        }
        if version >= GENERATION_SINCE && metadata.has_remaining() {
            metadata.try_get_i32().ok()?;
        }
        if version >= RACK_SINCE && metadata.has_remaining() {
            read.rack = name_or_null(&mut metadata)?.filter(|rack| !rack.is_empty());
        }
        Some(read)
    }

    /// The topics alone: what stands behind them may be of any form.
    pub fn topics(mut metadata: Bytes) -> Option<Vec<Arc<str>>> {
        metadata.try_get_i16().ok().filter(|version| *version >= 0)?;
        names(&mut metadata)
    }
}

/// What a consumer was assigned; nothing where it was told nothing. None where it is not of that form.
pub fn read_assignment(mut assignment: Bytes) -> Option<NamedPartitions> {
    if assignment.is_empty() {
        return Some(NamedPartitions::new());
    }
    assignment.try_get_i16().ok().filter(|version| *version >= 0)?;
    partitions(&mut assignment)
}

/// Whether there is something in an assignment that is for the assignor of its member: it would miss that.
pub fn has_user_data(mut assignment: Bytes) -> bool {
    let partitions = assignment.try_get_i16().ok().and_then(|_| partitions(&mut assignment));
    partitions.is_some() && assignment.try_get_i32().is_ok_and(|length| length > 0)
}

/// As a consumer is told that wrote its subscription in this version.
pub fn write_assignment(version: i16, assigned: &NamedPartitions) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(version.min(LATEST));
    out.put_i32(count_of(assigned.len()));
    for (topic, partitions) in assigned {
        out.put_i16(i16::try_from(topic.len()).expect("a topic's name is short"));
        out.put_slice(topic.as_bytes());
        out.put_i32(count_of(partitions.len()));
        partitions.iter().for_each(|partition| out.put_i32(*partition));
    }
    const NO_USER_DATA: i32 = -1;
    out.put_i32(NO_USER_DATA);
    out.freeze()
}

fn count_of(many: usize) -> i32 {
    i32::try_from(many).expect("what is in memory")
}

/// Those that are announced. None of them is nothing, so a lie about their number ends where the bytes do.
fn many<T>(bytes: &mut Bytes, each: impl Fn(&mut Bytes) -> Option<T>) -> Option<Vec<T>> {
    let count = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
    let mut many = Vec::new();
    for _ in 0..count {
        many.push(each(bytes)?);
    }
    Some(many)
}

fn names(bytes: &mut Bytes) -> Option<Vec<Arc<str>>> {
    many(bytes, |bytes| name_or_null(bytes)?)
}

fn partitions(bytes: &mut Bytes) -> Option<NamedPartitions> {
    let topics = many(bytes, |bytes| {
        let topic = name_or_null(bytes)??;
        let partitions = many(bytes, |bytes| bytes.try_get_i32().ok())?;
        Some((topic, partitions))
    })?;
    let mut named = NamedPartitions::new();
    for (topic, partitions) in topics {
        named.entry(topic).or_default().extend(partitions);
    }
    Some(named)
}

fn name_or_null(bytes: &mut Bytes) -> Option<Option<Arc<str>>> {
    let Ok(length) = usize::try_from(bytes.try_get_i16().ok()?) else { return Some(None) };
    let name = take(bytes, length)?;
    std::str::from_utf8(&name).ok().map(|name| Some(Arc::from(name)))
}

fn skip_bytes(bytes: &mut Bytes) -> Option<()> {
    let Ok(length) = usize::try_from(bytes.try_get_i32().ok()?) else { return Some(()) };
    take(bytes, length).map(|_| ())
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
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
            let topics = ConsumerSubscription::topics(Bytes::copy_from_slice(metadata));
            let topics: Option<Vec<_>> =
                topics.as_ref().map(|topics| topics.iter().map(|topic| &**topic).collect());
            assert_eq!(topics.as_deref(), expected, "{metadata:?}");
        }
    }

    const TOPICS: &[u8] = b"\x00\x00\x00\x01\x00\x01t";
    const USER_DATA: &[u8] = b"\x00\x00\x00\x02uu";
    const NO_USER_DATA: &[u8] = b"\xff\xff\xff\xff";
    const OWNED: &[u8] = b"\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03";

    fn owned() -> NamedPartitions {
        [(Arc::from("t"), [0, 3].into())].into()
    }

    #[test]
    fn each_version_says_more_and_may_end_where_the_one_before_did() {
        let said = |version: u8, parts: &[&[u8]]| [&[0, version], parts.concat().as_slice()].concat();
        let cases: [(Vec<u8>, NamedPartitions, Option<&str>); 7] = [
            (said(0, &[TOPICS, USER_DATA]), NamedPartitions::new(), None),
            (said(1, &[TOPICS, NO_USER_DATA, OWNED]), owned(), None),
            (said(1, &[TOPICS, NO_USER_DATA]), NamedPartitions::new(), None),
            (said(2, &[TOPICS, USER_DATA, OWNED, b"\x00\x00\x00\x05"]), owned(), None),
            (said(3, &[TOPICS, USER_DATA, OWNED, b"\x00\x00\x00\x05", b"\x00\x01r"]), owned(), Some("r")),
            (said(3, &[TOPICS, USER_DATA, OWNED, b"\x00\x00\x00\x05", b"\xff\xff"]), owned(), None),
            (said(9, &[TOPICS, USER_DATA, OWNED, b"\x00\x00\x00\x05", b"\xff\xff", b"later"]), owned(), None),
        ];
        for (metadata, owned, rack) in cases {
            let read = ConsumerSubscription::read(Bytes::from(metadata.clone()));
            let expected = ConsumerSubscription {
                version: i16::from(metadata[1]),
                topics: vec![Arc::from("t")],
                owned,
                rack: rack.map(Arc::from),
            };
            assert_eq!(read, Some(expected), "{metadata:?}");
        }
        let cut = said(1, &[TOPICS, NO_USER_DATA, &OWNED[..OWNED.len() - 1]]);
        assert_eq!(ConsumerSubscription::read(Bytes::from(cut)), None);
    }

    #[test]
    fn an_assignment_is_read_as_it_was_written() {
        let written = write_assignment(7, &owned());
        assert_eq!(&written[..], [b"\x00\x03", OWNED, NO_USER_DATA].concat());
        assert_eq!(read_assignment(written.clone()), Some(owned()));
        assert_eq!(read_assignment(Bytes::new()), Some(NamedPartitions::new()));
        assert_eq!(read_assignment(written.slice(..written.len() - 9)), None);
        let for_its_assignor = [&written[..written.len() - 4], USER_DATA].concat();
        let told = [for_its_assignor.into(), written.clone(), written.slice(..9), Bytes::new()];
        assert_eq!(told.map(has_user_data), [true, false, false, false]);
    }
}
