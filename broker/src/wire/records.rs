//! The records of a fetch's answer, put between the bytes that the codec makes.
//!
//! The codec would copy megabytes. It is given a short marker in place of each partition's records instead; the
//! answer leaves as the codec's bytes up to a marker, the records as they were read, and so on. Only a marker's
//! length, which stands before it, is rewritten.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::protocol::Encodable;

use super::outgoing::Outgoing;

/// No byte of it occurs in a text, and it is longer than anything that a client can make the codec repeat.
const MARKER: [u8; 24] =
    *b"\xff\xf8\xfe\xf9\xfd\xfa\xfc\xfb\xff\xf9\xfe\xfa\xfd\xfb\xfc\xf8\xff\xfa\xfe\xfb\xfd\xf8\xfc\xf9";
/// Since then lengths are variable numbers, and count from one.
const FLEXIBLE_SINCE: i16 = 12;

/// What stands for a partition's records in a [`FetchResponse`] until they are put in.
pub fn marker() -> Bytes {
    Bytes::from_static(&MARKER)
}

/// Appends the response to `out`, with `records` in place of the markers, in their order; `head` is
/// what the frame begins with, after its size.
pub fn encode(
    response: &FetchResponse,
    version: i16,
    head: &[u8],
    records: &[Vec<Bytes>],
    out: &mut Outgoing,
) -> Result<(), String> {
    let mut encoded = BytesMut::new();
    response.encode(&mut encoded, version).map_err(|error| format!("{error:#}"))?;
    let encoded = encoded.freeze();
    let places = places(&encoded, version);
    if places.len() != records.len() {
        return Err(format!("{} places for the records of {} partitions", places.len(), records.len()));
    }
    let lengths: Vec<usize> =
        records.iter().map(|pieces| pieces.iter().map(Bytes::len).sum::<usize>()).collect();
    let prefixes: Vec<Bytes> =
        lengths.iter().map(|length| prefix(*length, version)).collect::<Result<_, _>>()?;
    let replaced = MARKER.len() + marker_prefix(version).len();
    let size = head.len() + encoded.len() - replaced * places.len()
        + prefixes.iter().map(Bytes::len).sum::<usize>()
        + lengths.iter().sum::<usize>();
    let size = i32::try_from(size).map_err(|_| "the response is larger than a frame can say".to_string())?;

    out.buffer().put_i32(size);
    out.buffer().put_slice(head);
    let mut from = 0;
    for ((place, prefix), pieces) in places.into_iter().zip(prefixes).zip(records) {
        out.buffer().put_slice(&encoded[from..place]);
        out.buffer().put_slice(&prefix);
        for piece in pieces {
            out.push(piece.clone());
        }
        from = place + replaced;
    }
    out.buffer().put_slice(&encoded[from..]);
    Ok(())
}

/// Where the lengths of the markers begin.
fn places(encoded: &[u8], version: i16) -> Vec<usize> {
    let before = marker_prefix(version);
    let mut found = Vec::new();
    let mut from = before.len();
    while let Some(at) =
        encoded.get(from..).and_then(|rest| rest.windows(MARKER.len()).position(|w| w == MARKER))
    {
        let at = from + at;
        if encoded[..at].ends_with(&before) {
            found.push(at - before.len());
        }
        from = at + MARKER.len();
    }
    found
}

fn marker_prefix(version: i16) -> Vec<u8> {
    match version >= FLEXIBLE_SINCE {
        true => vec![MARKER.len() as u8 + 1],
        false => (MARKER.len() as i32).to_be_bytes().to_vec(),
    }
}

/// A length as the version writes it.
fn prefix(length: usize, version: i16) -> Result<Bytes, String> {
    let known = i32::try_from(length).map_err(|_| format!("records of {length} bytes"))?;
    if version < FLEXIBLE_SINCE {
        return Ok(Bytes::copy_from_slice(&known.to_be_bytes()));
    }
    let mut out = Vec::with_capacity(5);
    let mut rest = known as u32 + 1;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::fetch_response::{
        FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
    };
    use kafka_protocol::protocol::{Decodable, StrBytes};
    use uuid::Uuid;

    use super::*;

    /// A response of this version whose partitions have records of these lengths, in pieces.
    fn response(version: i16, lengths: &[usize]) -> (FetchResponse, Vec<Vec<Bytes>>, Vec<Bytes>) {
        let mut records = Vec::new();
        let mut whole = Vec::new();
        let mut partitions = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            let all: Bytes = (0..*length).map(|n| (n * 7 + index) as u8).collect::<Vec<_>>().into();
            let mut data = PartitionData::default()
                .with_partition_index(index as i32)
                .with_high_watermark(i64::MAX)
                .with_aborted_transactions(Some(Vec::new()))
                .with_records(Some(if *length > 0 { marker() } else { Bytes::new() }));
            if version >= 12 {
                data.current_leader = LeaderIdAndEpoch::default().with_leader_epoch(3);
            }
            if *length > 0 {
                records.push(all.chunks(all.len().div_ceil(3)).map(Bytes::copy_from_slice).collect());
            }
            partitions.push(data);
            whole.push(all);
        }
        let mut topic = FetchableTopicResponse::default().with_partitions(partitions);
        match version >= 13 {
            true => topic.topic_id = Uuid::from_u128(0xfff8_fef9_fdfa_fcfb_fff9_fefa_fdfb_fcf8),
            false => topic.topic = TopicName(StrBytes::from_static_str("orders")),
        }
        let mut response = FetchResponse::default().with_responses(vec![topic]);
        if version >= 16 {
            response.node_endpoints = vec![NodeEndpoint::default().with_host("host".into())];
        }
        (response, records, whole)
    }

    #[test]
    fn every_version_decodes_to_the_records_that_were_put_in() {
        for version in 4..=18 {
            for lengths in [&[][..], &[0], &[1], &[0, 126, 127, 0, 128], &[40_000, 3, 70_000, 20_000]] {
                let (message, records, whole) = response(version, lengths);
                let mut out = Outgoing::default();
                out.buffer().put_slice(b"before");
                assert_eq!(encode(&message, version, b"head", &records, &mut out), Ok(()));
                let mut bytes = out.to_bytes();
                bytes.advance(6);
                assert_eq!(bytes.get_i32() as usize, bytes.len(), "version {version}");
                bytes.advance(4);
                let decoded = FetchResponse::decode(&mut bytes, version).unwrap();
                assert!(bytes.is_empty(), "version {version}");
                let mut expected = message;
                for (data, records) in expected.responses[0].partitions.iter_mut().zip(whole) {
                    data.records = Some(records);
                }
                assert!(decoded == expected, "version {version}, {lengths:?}");
            }
        }
    }

    #[test]
    fn a_marker_too_many_is_an_error_and_nothing_is_written() {
        let (message, mut records, _) = response(12, &[5, 6]);
        records.pop();
        let mut out = Outgoing::default();
        assert!(encode(&message, 12, b"head", &records, &mut out).is_err());
        assert!(out.is_empty());
    }
}
