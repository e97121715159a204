//! What must hold: after each step, and when all has come to rest.

use super::*;

impl Model {
    /// Who is granted an epoch has all that was acknowledged.
    pub(super) fn check_leader(&mut self, node: usize) {
        let log: BTreeMap<i64, Content> =
            self.nodes[node].log().into_iter().map(|(_, at, what)| (at, what)).collect();
        for (content, offset) in &self.acked {
            assert_eq!(
                log.get(offset),
                Some(content),
                "node {node} leads, and lacks what was acknowledged at {offset}"
            );
        }
        let mut contents: Vec<Content> = log.values().copied().collect();
        contents.sort_unstable();
        let all = contents.len();
        contents.dedup();
        assert_eq!(contents.len(), all, "no record stands twice");
    }

    /// What is believed to be on all disks is there, also after whatever comes.
    pub(super) fn check_held_by_all(&mut self) {
        let seen = |node: &Node| {
            let machine = node.machine.as_ref()?;
            let is_told = machine.held_by_all() > Offset::ZERO && machine.view().following;
            Some((is_told, (machine.held_by_all(), machine.view().log_end, node.log())))
        };
        let (told, open): (Vec<bool>, Vec<(Offset, Offset, Log)>) =
            self.nodes.iter().filter_map(seen).unzip();
        if told.contains(&true) {
            self.probe("told to be held by all");
        }
        let before = |log: &Log, mark: Offset| -> Log {
            log.iter().copied().filter(|(_, offset, _)| *offset < mark.0).collect()
        };
        for (mark, _, log) in open.iter().filter(|(mark, ..)| *mark > Offset::ZERO) {
            let known = before(log, *mark);
            for (_, end, other) in &open {
                assert!(end >= mark, "not held by all before {mark}: one ends at {end}");
                assert_eq!(before(other, *mark), known, "not held by all before {mark}");
            }
        }
    }

    pub(super) fn check_prefixes(&self) {
        let logs: Vec<(i64, Log)> = self
            .nodes
            .iter()
            .filter_map(|node| Some((node.machine.as_ref()?.high_watermark().0, node.log())))
            .collect();
        for (mark, log) in &logs {
            for (other_mark, other) in &logs {
                let common = *mark.min(other_mark);
                let committed = |log: &Log| -> Log {
                    log.iter().copied().filter(|(_, offset, _)| *offset < common).collect()
                };
                assert_eq!(committed(log), committed(other), "logs differ before {common}");
            }
        }
    }

    /// All have what the leader has, all of it is committed, and whoever leads knows each producer's last batch.
    pub(super) fn check_settled(&mut self, leader: usize) {
        let log = self.nodes[leader].log();
        for node in 0..NODES {
            assert_eq!(self.nodes[node].log(), log, "node {node} has what the leader has");
        }
        let ends = self.nodes.iter().filter_map(|node| Some(node.machine.as_ref()?.view()));
        let high: Vec<Offset> = ends.map(|view| view.high_watermark).collect();
        let end = self.nodes[leader].machine.as_ref().map(|machine| machine.view().log_end);
        assert!(high.iter().all(|high| Some(*high) == end), "all is committed: {high:?} of {end:?}");
        self.check_leader(leader);
        // Whoever leads knows each producer's last batch again.
        for node in &self.nodes {
            let Some(machine) = &node.machine else { continue };
            for (nth, producer) in
                self.producers.iter().enumerate().filter(|(_, producer)| producer.sequence > 0)
            {
                let stamp = ProducerStamp {
                    id: ProducerId(nth as i64),
                    epoch: 0,
                    base_sequence: producer.sequence - 1,
                };
                let known = machine.producers().check(stamp, 0, at(0));
                assert!(matches!(known, Ok(Sequenced::Duplicate(_))), "producer {nth}: {known:?}");
            }
        }
    }
}
