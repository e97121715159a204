//! One log in all replicas: what lies on the disks of their nodes when all has come to rest.

use std::collections::BTreeMap;

use broker::ids::Offset;
use broker::log::batch::{BatchHeader, HEADER_BYTES};
use broker::log::segment::{SegmentName, live};
use reports::{Verdict, Violation};

use super::Findings;
use super::kept_records::{self, OpenBatches};
use super::replicas::NodeSeen;
use super::segments::SegmentFiles;

/// Batches of one replica, from offset to bytes.
type Log = BTreeMap<i64, Vec<u8>>;

/// The logs that lie on disks when all nodes have stopped, from where they start up to where those of the replicas that were open
/// ended: by node, the segments in the order of their paths. Of a compacted topic it is compared what they come to.
pub fn replicas_differ(
    segments: &BTreeMap<String, Vec<SegmentFiles>>,
    nodes: &[NodeSeen],
    open: OpenBatches,
) -> Vec<Violation> {
    let mut findings = Findings::of("replicas-differ", Verdict::Safety);
    let ends: BTreeMap<(&str, &str), i64> = nodes
        .iter()
        .flat_map(|node| node.replicas.iter())
        .map(|(name, replica)| ((replica.directory.as_str(), name.as_str()), replica.log_end))
        .collect();
    let is_compacted = |name: &str| {
        let mut partitions = nodes.iter().filter_map(|node| node.partitions.get(name));
        partitions.any(|partition| partition.compacted)
    };
    let starts: BTreeMap<String, BTreeMap<&str, i64>> =
        nodes.iter().map(|seen| (seen.name(), seen.log_starts())).collect();
    let start_of =
        |node: &str, directory: &str| starts.get(node).and_then(|of| of.get(directory)).copied().unwrap_or(0);
    for ((directory, name), end) in ends {
        let logs: Vec<(&String, Log)> = segments
            .iter()
            .map(|(node, files)| (node, log(files, directory, (start_of(node, directory), end))))
            .filter(|(_, log)| !log.is_empty())
            .collect();
        let Some((first, reference)) = logs.first() else { continue };
        for (node, log) in &logs[1..] {
            // Old segments go at different times; from the later start on both have everything.
            let from = |log: &Log| log.keys().next().copied().unwrap_or(0);
            let start = from(log).max(from(reference));
            if is_compacted(name) {
                let (here, there) = (log.range(start..), reference.range(start..));
                let (here, there) = (here.map(|(_, batch)| batch), there.map(|(_, batch)| batch));
                if let Some(what) = kept_records::disagreement(here, there, open) {
                    findings.add(format!("{name}, compacted: of {node} and {first} {what}"));
                }
                continue;
            }
            // Who began within a batch was given the rest of it.
            let divided = |log: &Log| {
                let (_, bytes) = log.range(..start).next_back()?;
                BatchHeader::read(bytes).ok().map(|header| header.end().0)
            };
            let start = [divided(log), divided(reference)].into_iter().flatten().fold(start, i64::max);
            let (mut here, mut there) = (log.range(start..), reference.range(start..));
            loop {
                match (here.next(), there.next()) {
                    (None, None) => break,
                    (one, other) if one == other => {}
                    (one, other) => {
                        let at = one.into_iter().chain(other).map(|(offset, _)| *offset).min().unwrap_or(end);
                        let (here, there) = (described(one), described(other));
                        findings
                            .add(format!("{name} at offset {at}: {node} has {here}, and {first} {there}"));
                        break;
                    }
                }
            }
        }
    }
    findings.all()
}

/// What stands in a replica's log.
fn described(batch: Option<(&i64, &Vec<u8>)>) -> String {
    match batch.map(|(offset, bytes)| (offset, BatchHeader::read(bytes))) {
        None => "nothing more".into(),
        Some((offset, Ok(header))) => {
            format!("offsets {offset} to {} of epoch {}", header.end().0 - 1, header.leader_epoch)
        }
        Some((offset, Err(damage))) => format!("{damage} at offset {offset}"),
    }
}

/// The batches between these offsets in the directory of that partition.
fn log(files: &[SegmentFiles], directory: &str, (start, end): (i64, i64)) -> Log {
    let named = |file: &&SegmentFiles| file.directory() == Some(directory);
    let name = |file: &SegmentFiles| SegmentName::parse(file.path.file_name()?.to_str()?);
    let files: Vec<(SegmentName, &SegmentFiles)> =
        files.iter().filter(named).filter_map(|file| Some((name(file)?, file))).collect();
    let names = live(files.iter().map(|(name, _)| *name).collect());
    let mut log = Log::new();
    for (at, name) in names.iter().enumerate() {
        let until = names.get(at + 1).map_or(Offset(end), |next| next.base).0.min(end);
        let Some((_, file)) = files.iter().find(|(known, _)| known == name) else { continue };
        let (mut position, mut next) = (0, name.base.0);
        while next < until {
            let Ok(header) = BatchHeader::read(&file.log.read(position, HEADER_BYTES)) else { break };
            if header.base_offset.0 != next {
                break;
            }
            let base = std::mem::replace(&mut next, header.end().0);
            if next > start {
                log.insert(base, file.log.read(position, header.bytes));
            }
            position += header.bytes as u64;
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::kept_records::KeptRecord;
    use crate::checker::replicas::{PartitionSeen, ReplicaSeen};
    use crate::world::Pages;

    fn node(compacted: bool) -> NodeSeen {
        let replica = ReplicaSeen { directory: "t-0".into(), log_end: 2, ..ReplicaSeen::default() };
        let partition = PartitionSeen { compacted, ..PartitionSeen::default() };
        NodeSeen {
            node: 1,
            partitions: [("orders-0".to_owned(), partition)].into(),
            replicas: [("orders-0".to_owned(), replica)].into(),
            ..NodeSeen::default()
        }
    }

    /// All of one key; the byte that fills a batch says what its record holds, and 0 that there is none.
    fn open(batch: &[u8]) -> Result<Vec<KeptRecord>, String> {
        let header = BatchHeader::read(batch).map_err(|damage| damage.to_string())?;
        let (offset, digest) = (header.base_offset.0, u64::from(batch[79]));
        let record = KeptRecord { offset, key: Some(vec![7]), tombstone: false, digest };
        Ok((digest > 0).then_some(record).into_iter().collect())
    }

    /// A batch of one record.
    fn batch(offset: i64, byte: u8) -> Vec<u8> {
        let mut batch = vec![byte; 80];
        batch[..8].copy_from_slice(&offset.to_be_bytes());
        batch[8..12].copy_from_slice(&(80i32 - 12).to_be_bytes());
        batch[16] = 2;
        batch[23..27].copy_from_slice(&0i32.to_be_bytes());
        batch[57..61].copy_from_slice(&1i32.to_be_bytes());
        batch
    }

    fn file(name: &str, batches: &[Vec<u8>]) -> SegmentFiles {
        let mut log = Pages::default();
        log.write(0, &batches.concat());
        SegmentFiles { path: format!("/data/partitions/t-0.9/{name}").into(), log, ..SegmentFiles::default() }
    }

    const FIRST: &str = "00000000000000000000.log";

    #[test]
    fn replicas_with_another_batch_at_an_offset_or_without_one_are_found() {
        let nodes = [node(false)];
        let differ = |two: SegmentFiles| {
            let one = file(FIRST, &[batch(0, 1), batch(1, 2), batch(2, 9)]);
            let segments = [("node1".to_owned(), vec![one]), ("node2".to_owned(), vec![two])].into();
            replicas_differ(&segments, &nodes, open).into_iter().map(|found| found.what).collect::<Vec<_>>()
        };
        assert_eq!(differ(file(FIRST, &[batch(0, 1), batch(1, 2)])), Vec::<String>::new());
        // What fills a batch is its epoch, too.
        let of = |epoch: i32| format!("offsets 1 to 1 of epoch {epoch}");
        let other = differ(file(FIRST, &[batch(0, 1), batch(1, 3)]));
        let (here, there) = (of(0x0303_0303), of(0x0202_0202));
        assert_eq!(other, [format!("orders-0 at offset 1: node2 has {here}, and node1 {there}")]);
        let less = differ(file(FIRST, &[batch(0, 1)]));
        assert_eq!(less, [format!("orders-0 at offset 1: node2 has nothing more, and node1 {there}")]);
    }

    #[test]
    fn who_began_within_a_batch_has_the_rest_of_it() {
        let nodes = [node(false)];
        let mut whole = batch(0, 1);
        whole[23..27].copy_from_slice(&1i32.to_be_bytes());
        let differ = |last: u8| {
            let one = file(FIRST, &[whole.clone(), batch(2, 3)]);
            let two = file("00000000000000000001.log", &[batch(1, 2), batch(2, last)]);
            let segments = [("node1".to_owned(), vec![one]), ("node2".to_owned(), vec![two])].into();
            let nodes = nodes.clone().map(|mut node| {
                node.replicas.values_mut().for_each(|replica| replica.log_end = 3);
                node
            });
            replicas_differ(&segments, &nodes, open).len()
        };
        assert_eq!((differ(3), differ(4)), (0, 1));
    }

    #[test]
    fn what_a_later_generation_replaced_does_not_count() {
        let nodes = [node(false)];
        let one = vec![file(FIRST, &[batch(0, 1), batch(1, 2)])];
        let cut = vec![
            file(FIRST, &[batch(0, 1), batch(1, 7)]),
            file("00000000000000000001.g1.log", &[batch(1, 2)]),
        ];
        let segments = [("node1".to_owned(), one), ("node2".to_owned(), cut)].into();
        assert_eq!(replicas_differ(&segments, &nodes, open), []);
    }

    #[test]
    fn of_a_compacted_topic_it_counts_what_is_left() {
        let differ = |compacted, two: &[Vec<u8>]| {
            let one = file(FIRST, &[batch(0, 1), batch(1, 2)]);
            let segments =
                [("node1".to_owned(), vec![one]), ("node2".to_owned(), vec![file(FIRST, two)])].into();
            replicas_differ(&segments, &[node(compacted)], open).len()
        };
        let compacted = [batch(0, 0), batch(1, 2)];
        assert_eq!((differ(true, &compacted), differ(false, &compacted)), (0, 1));
        assert_eq!(differ(true, &[batch(0, 1), batch(1, 0)]), 1, "the last is gone");
        assert_eq!(differ(true, &[batch(0, 0), batch(1, 3)]), 1, "it is another");
    }
}
