//! What the nodes of a cluster have of the same thing: one leader in an epoch, one image at an index. Seen from inside, for clients see one node at a time.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::Findings;

/// A node at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSeen {
    pub node: i32,
    /// Which process start.
    pub incarnation: u64,
    /// The index of its metadata image, and a digest of what stands in it.
    pub image: (u64, u64),
    /// The term of the metadata group and whether somebody leads in it, as far as it knows.
    pub term: (u64, bool),
    /// It has no reason to take others for the leaders of what it leads.
    pub may_lead: bool,
    /// The nodes that are fenced as of its image.
    pub fenced: Vec<i32>,
    /// Who votes in the metadata group, as far as it knows.
    pub voters: Vec<i32>,
    /// What the image says of each partition, by name.
    pub partitions: BTreeMap<String, PartitionSeen>,
    /// The replicas that are open there, by the names of their partitions.
    pub replicas: BTreeMap<String, ReplicaSeen>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartitionSeen {
    pub leader: Option<i32>,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    /// Who may lead beside those.
    pub elr: Vec<i32>,
    /// How often its leader, its ISR or its replicas have changed.
    pub changes: u64,
    /// Its topic is compacted: every replica does that for itself.
    pub compacted: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaSeen {
    /// What the names of its directories begin with, on every node.
    pub directory: String,
    pub leading: bool,
    pub epoch: i32,
    pub high_watermark: i64,
    pub log_start: i64,
    pub log_end: i64,
    /// Everything before is durable there.
    pub synced: i64,
}

/// Partitions whose leaders have moved, or may have, as the controller wanted it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Movements {
    /// The first of their replicas leads them again, after another.
    pub returned: Vec<String>,
    /// Their replicas have changed.
    pub reassigned: Vec<String>,
}

/// Three seconds: a session as it ships, and an answer that is late.
const STALE_LOOKS_MAX: u32 = 6;

/// What was seen at all moments of a run.
#[derive(Debug, Default)]
pub struct Looks {
    leaders: BTreeMap<(String, i32), (i32, u64)>,
    images: BTreeMap<u64, (u64, i32)>,
    /// Who led a partition as of the latest image that named somebody, and who kept it.
    led: BTreeMap<String, (u64, i32, Vec<i32>)>,
    /// The most that a partition's leader, ISR or replicas have changed.
    pub partition_changes: u64,
    /// The first term of the metadata group in which somebody led, and the latest.
    terms: Option<(u64, u64)>,
    /// The nodes of each partition, by its name, as of the first image that had it.
    pub placements: BTreeMap<String, Vec<i32>>,
    /// Who led a partition, and might, beside somebody of a later epoch at the last look, and at how many in a row: by directory and
    /// epoch, for a topic of the same name may have come and gone.
    stale: BTreeMap<(String, i32), (i32, u32)>,
    /// The same for too long: by which node, and how.
    served_on: Vec<(i32, String)>,
    /// Who led while it was fenced, and how.
    unnoticed: Vec<String>,
    found: Vec<(&'static str, String)>,
}

impl NodeSeen {
    /// The machine's.
    pub fn name(&self) -> String {
        format!("node{}", self.node)
    }

    /// Where its logs start, by what the names of their directories begin with.
    pub fn log_starts(&self) -> BTreeMap<&str, i64> {
        self.replicas.values().map(|replica| (replica.directory.as_str(), replica.log_start)).collect()
    }
}

impl Looks {
    /// Returns what has changed since the last look that moves leaders without a fault.
    pub fn look(&mut self, nodes: &[NodeSeen]) -> Movements {
        let mut movements = Movements::default();
        for node in nodes {
            let (index, digest) = node.image;
            if let (term, true) = node.term {
                let (_, latest) = self.terms.get_or_insert((term, term));
                *latest = term.max(*latest);
            }
            for (name, partition) in &node.partitions {
                if !self.placements.contains_key(name) {
                    self.placements.insert(name.clone(), partition.replicas.clone());
                }
                let Some(leader) = partition.leader else { continue };
                let now = || (index, leader, partition.replicas.clone());
                let known = self.led.entry(name.clone()).or_insert_with(now);
                if index > known.0 {
                    let (_, before, replicas) = std::mem::replace(known, now());
                    if replicas != partition.replicas {
                        movements.reassigned.push(name.clone());
                    }
                    if before != leader && partition.replicas.first() == Some(&leader) {
                        movements.returned.push(name.clone());
                    }
                }
            }
            let (known, by) = *self.images.entry(index).or_insert((digest, node.node));
            if known != digest {
                let what = format!("at index {index} node {} has another image than node {by}", node.node);
                self.note("images-differ", what);
            }
            let changes = node.partitions.values().map(|partition| partition.changes);
            self.partition_changes = changes.fold(self.partition_changes, u64::max);
            for (name, replica) in node.replicas.iter().filter(|(_, replica)| replica.leading) {
                let own = (node.node, node.incarnation);
                let leader = *self.leaders.entry((replica.directory.clone(), replica.epoch)).or_insert(own);
                if leader != own {
                    let what = format!(
                        "start {} of node {} and start {} of node {} led {name} in epoch {}",
                        leader.1, leader.0, own.1, own.0, replica.epoch
                    );
                    self.note("two-leaders", what);
                }
            }
            self.look_at_followers(node, nodes);
        }
        self.look_at_leaders(nodes);
        self.look_at_fenced(nodes);
        movements
    }

    /// What a leader calls committed is on the disks of all that it takes for in sync. Those count who take themselves for it, too:
    /// an image may lag.
    fn look_at_followers(&mut self, leader: &NodeSeen, nodes: &[NodeSeen]) {
        for (name, led) in leader.replicas.iter().filter(|(_, replica)| replica.leading) {
            let Some(partition) = leader.partitions.get(name).filter(|of| of.leader == Some(leader.node))
            else {
                continue;
            };
            for follower in nodes.iter().filter(|node| partition.isr.contains(&node.node)) {
                let agrees = follower.partitions.get(name) == Some(partition);
                // A topic of that name may have come and gone meanwhile.
                let is_same = |replica: &&ReplicaSeen| agrees && replica.directory == led.directory;
                let Some(replica) = follower.replicas.get(name).filter(is_same) else { continue };
                if replica.synced < led.high_watermark {
                    let what = format!(
                        "node {} is in sync in {name} and has synced up to {}, and {} is committed as node {} leads it",
                        follower.node, replica.synced, led.high_watermark, leader.node
                    );
                    self.note("in-sync", what);
                }
            }
        }
    }

    /// Who leads and may have been replaced has stopped once its session is over, or its next heartbeat is answered.
    fn look_at_leaders(&mut self, nodes: &[NodeSeen]) {
        let mut leaders: BTreeMap<(&str, i32), (i32, &str)> = BTreeMap::new();
        for node in nodes.iter().filter(|node| node.may_lead) {
            for (name, replica) in node.replicas.iter().filter(|(_, replica)| replica.leading) {
                leaders.insert((&replica.directory, replica.epoch), (node.node, name));
            }
        }
        let latest: BTreeMap<&str, (i32, i32)> =
            leaders.iter().map(|((of, epoch), (node, _))| (*of, (*epoch, *node))).collect();
        let mut stale = BTreeMap::new();
        for ((of, epoch), (node, name)) in &leaders {
            let Some((last, by)) = latest.get(of).filter(|(last, _)| epoch < last) else { continue };
            let key = ((*of).to_owned(), *epoch);
            let before = self.stale.get(&key).filter(|(known, _)| known == node);
            let looks = before.map_or(1, |(_, looks)| looks + 1);
            if looks == STALE_LOOKS_MAX + 1 {
                let what = format!(
                    "node {node} serves {name} as its leader in epoch {epoch}, and node {by} leads it in {last}"
                );
                self.served_on.push((*node, what));
            }
            stale.insert(key, (*node, looks));
        }
        self.stale = stale;
    }

    /// Who is fenced noticed the end of its session before, by its own clock.
    fn look_at_fenced(&mut self, nodes: &[NodeSeen]) {
        let Some(newest) = nodes.iter().max_by_key(|node| node.image.0) else { return };
        for node in nodes.iter().filter(|node| node.may_lead && newest.fenced.contains(&node.node)) {
            let Some((name, led)) = node.replicas.iter().find(|(_, replica)| replica.leading) else {
                continue;
            };
            self.unnoticed.push(format!(
                "node {} is fenced at index {} and serves {name} as its leader in epoch {}",
                node.node, newest.image.0, led.epoch
            ));
        }
    }

    /// Leaders that were fenced and went on, where all clocks run alike; and leaders that went on beside their successors, but for
    /// nodes that a fault kept from noticing.
    pub fn stale_leaders(&self, clocks_differ: bool, is_excused: impl Fn(i32) -> bool) -> Vec<Violation> {
        let mut findings = Findings::of("stale-leader", Verdict::Safety);
        let unnoticed = self.unnoticed.iter().filter(|_| !clocks_differ);
        unnoticed.for_each(|what| findings.add(what.clone()));
        let counted = self.served_on.iter().filter(|(node, _)| !is_excused(*node));
        counted.for_each(|(_, what)| findings.add(what.clone()));
        findings.all()
    }

    /// Terms of the metadata group after the first in which somebody led.
    pub fn elections(&self) -> u64 {
        self.terms.map_or(0, |(first, latest)| latest - first)
    }

    fn note(&mut self, checker: &'static str, what: String) {
        if !self.found.iter().any(|(_, known)| *known == what) {
            self.found.push((checker, what));
        }
    }

    pub fn violations(&self) -> Vec<Violation> {
        let of = |checker: &'static str| {
            let mut findings = Findings::of(checker, Verdict::Safety);
            let found = self.found.iter().filter(|(by, _)| *by == checker);
            found.for_each(|(_, what)| findings.add(what.clone()));
            findings.all()
        };
        ["two-leaders", "images-differ", "in-sync"].into_iter().flat_map(of).collect()
    }
}

/// Nodes that can be done without: the others are most of those who vote, and each partition has somebody among them who has everything.
pub fn dispensable(nodes: &[NodeSeen]) -> Vec<i32> {
    let Some(newest) = nodes.iter().max_by_key(|node| node.image.0) else { return Vec::new() };
    let serve = |of: &&i32| nodes.iter().any(|node| node.node == **of);
    let without = |one: &i32| {
        let left = newest.voters.iter().filter(|voter| *voter != one);
        let has_all = |partition: &PartitionSeen| {
            partition.isr.iter().chain(&partition.elr).filter(serve).any(|replica| replica != one)
        };
        2 * left.filter(serve).count() > newest.voters.len() && newest.partitions.values().all(has_all)
    };
    nodes.iter().map(|node| node.node).filter(without).collect()
}

/// What is not yet as it is in a cluster in which nobody writes and nothing is broken but the node `without`; empty: all is.
pub fn pending(nodes: &[NodeSeen], count: u32, without: Option<i32>) -> Vec<String> {
    let mut pending = Vec::new();
    let nodes: Vec<&NodeSeen> = nodes.iter().filter(|node| Some(node.node) != without).collect();
    let count = count as usize - usize::from(without.is_some());
    if nodes.len() < count {
        pending.push(format!("{} of {count} nodes serve", nodes.len()));
    }
    let Some(newest) = nodes.iter().max_by_key(|node| node.image.0) else { return pending };
    for node in nodes.iter().filter(|node| node.image.0 < newest.image.0) {
        pending.push(format!("node {} is at index {} of {}", node.node, node.image.0, newest.image.0));
    }
    let replica = |name: &str, of: i32| nodes.iter().find(|node| node.node == of)?.replicas.get(name);
    for (name, partition) in &newest.partitions {
        let Some(leader) = partition.leader else {
            pending.push(format!("{name} has no leader"));
            continue;
        };
        let replicas = || partition.replicas.iter().copied().filter(|of| Some(*of) != without);
        let missing: Vec<i32> = replicas().filter(|of| !partition.isr.contains(of)).collect();
        if !missing.is_empty() {
            pending.push(format!("{name} is under-replicated: {missing:?} not in sync"));
        }
        let Some(led) = replica(name, leader).filter(|replica| replica.leading) else {
            pending.push(format!("node {leader} does not lead {name} yet"));
            continue;
        };
        for of in replicas() {
            match replica(name, of) {
                None => pending.push(format!("{name} is not open on node {of}")),
                Some(other) if (other.log_end, other.high_watermark) != (led.log_end, led.log_end) => {
                    pending.push(format!(
                        "node {of} has {name} up to {}, high watermark {}, of {}",
                        other.log_end, other.high_watermark, led.log_end
                    ));
                }
                Some(_) => {}
            }
        }
    }
    pending
}

pub fn not_converged(pending: &[String]) -> Vec<Violation> {
    let mut findings = Findings::of("not-converged", Verdict::Freeze);
    pending.iter().for_each(|what| findings.add(what.clone()));
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(leading: bool, epoch: i32, log_end: i64) -> ReplicaSeen {
        ReplicaSeen {
            directory: "t-0".into(),
            leading,
            epoch,
            high_watermark: log_end,
            log_start: 0,
            log_end,
            synced: log_end,
        }
    }

    fn node(number: i32, replica: ReplicaSeen) -> NodeSeen {
        let partition = PartitionSeen {
            leader: Some(1),
            replicas: vec![1, 2],
            isr: vec![1, 2],
            ..PartitionSeen::default()
        };
        NodeSeen {
            node: number,
            incarnation: 1,
            image: (7, 70),
            voters: vec![1, 2],
            term: (2, true),
            may_lead: true,
            fenced: Vec::new(),
            partitions: [("orders-0".to_owned(), partition)].into(),
            replicas: [("orders-0".to_owned(), replica)].into(),
        }
    }

    fn found(looks: &[Vec<NodeSeen>]) -> Vec<String> {
        let mut all = Looks::default();
        looks.iter().for_each(|look| drop(all.look(look)));
        all.violations().into_iter().map(|violation| violation.checker).collect()
    }

    #[test]
    fn two_processes_that_lead_in_one_epoch_are_found_whenever_they_do() {
        let (one, two) = (node(1, replica(true, 3, 5)), node(2, replica(true, 3, 5)));
        assert_eq!(found(&[vec![one.clone(), node(2, replica(false, 3, 5))]]), Vec::<String>::new());
        assert_eq!(found(&[vec![one.clone()], vec![two]]), ["two-leaders"]);
        let again = NodeSeen { incarnation: 2, ..one.clone() };
        assert_eq!(found(&[vec![one.clone()], vec![again]]), ["two-leaders"]);
        assert_eq!(found(&[vec![one], vec![node(2, replica(true, 4, 5))]]), Vec::<String>::new());
    }

    #[test]
    fn images_that_differ_at_the_same_index_are_found() {
        let one = node(1, replica(false, 3, 5));
        let behind = NodeSeen { node: 2, image: (6, 60), ..one.clone() };
        let other = NodeSeen { node: 2, image: (7, 71), ..one.clone() };
        assert_eq!(found(&[vec![one.clone(), behind]]), Vec::<String>::new());
        assert_eq!(found(&[vec![one], vec![other]]), ["images-differ"]);
    }

    #[test]
    fn a_follower_in_sync_that_has_not_synced_what_is_committed_is_found() {
        let (leader, behind) = (node(1, replica(true, 3, 5)), node(2, replica(false, 3, 4)));
        assert_eq!(found(&[vec![leader.clone(), behind.clone()]]), ["in-sync"]);
        let mut unsynced = node(2, replica(false, 3, 5));
        unsynced.replicas.get_mut("orders-0").unwrap().synced = 4;
        assert_eq!(found(&[vec![leader.clone(), unsynced]]), ["in-sync"]);
        let mut left = behind.clone();
        left.partitions.get_mut("orders-0").unwrap().isr = vec![1];
        assert_eq!(
            found(&[vec![leader.clone(), left.clone()]]),
            Vec::<String>::new(),
            "one has another image"
        );
        let mut alone = leader;
        alone.partitions = left.partitions.clone();
        assert_eq!(found(&[vec![alone, left]]), Vec::<String>::new());
    }

    #[test]
    fn a_leader_that_goes_on_beside_the_next_one_is_found() {
        let (old, next) = (node(1, replica(true, 3, 5)), node(2, replica(true, 4, 5)));
        let found = |look: [&NodeSeen; 2], looks: u32, excused: bool| {
            let mut all = Looks::default();
            (0..looks).for_each(|_| drop(all.look(&look.map(Clone::clone))));
            all.stale_leaders(false, |node| excused && node == 1).len()
        };
        let long = STALE_LOOKS_MAX + 1;
        assert_eq!(found([&old, &next], long, false), 1);
        assert_eq!(found([&old, &next], long, true), 0);
        assert_eq!(found([&old, &next], STALE_LOOKS_MAX, false), 0, "it may be about to stop");
        let stopped = NodeSeen { may_lead: false, ..old.clone() };
        assert_eq!(found([&stopped, &next], long, false), 0);
        let follows = node(2, replica(false, 4, 5));
        assert_eq!(found([&old, &follows], long, false), 0);
        let mut another = next.clone();
        another.replicas.get_mut("orders-0").unwrap().directory = "u-0".into();
        assert_eq!(found([&old, &another], long, false), 0, "a topic that was made anew under that name");
    }

    #[test]
    fn a_leader_that_is_fenced_and_goes_on_is_found_at_once() {
        let led = node(1, replica(true, 3, 5));
        let newer = NodeSeen { image: (8, 80), fenced: vec![1], ..node(2, replica(false, 3, 5)) };
        let found = |one: &NodeSeen, other: &NodeSeen, clocks_differ: bool| {
            let mut all = Looks::default();
            drop(all.look(&[one.clone(), other.clone()]));
            all.stale_leaders(clocks_differ, |_| true).len()
        };
        assert_eq!(found(&led, &newer, false), 1);
        assert_eq!(found(&led, &newer, true), 0);
        let noticed = NodeSeen { may_lead: false, ..led.clone() };
        assert_eq!(found(&noticed, &newer, false), 0);
        let counted_on_again = NodeSeen { image: (9, 90), ..led };
        assert_eq!(found(&counted_on_again, &newer, false), 0);
    }

    #[test]
    fn who_is_not_done_says_why() {
        let leader = node(1, replica(true, 3, 5));
        let waits = |nodes: &[NodeSeen]| pending(nodes, 2, None).join("; ");
        assert_eq!(waits(&[leader.clone(), node(2, replica(false, 3, 5))]), "");
        assert_eq!(
            waits(&[leader.clone(), node(2, replica(false, 3, 4))]),
            "node 2 has orders-0 up to 4, high watermark 4, of 5"
        );
        assert!(waits(std::slice::from_ref(&leader)).contains("1 of 2 nodes serve"));
        let mut shrunk = [leader.clone(), node(2, replica(false, 3, 5))];
        for node in &mut shrunk {
            node.partitions.values_mut().for_each(|partition| partition.isr = vec![1]);
        }
        assert_eq!(waits(&shrunk), "orders-0 is under-replicated: [2] not in sync");
        let mut lost = shrunk.clone();
        for node in &mut lost {
            node.partitions.values_mut().for_each(|partition| partition.leader = None);
        }
        assert_eq!(waits(&lost), "orders-0 has no leader");
        assert_eq!(not_converged(&["x".to_owned()]).len(), 1);
    }

    #[test]
    fn a_node_is_dispensable_where_the_others_vote_and_have_everything() {
        let three = |isr: &[i32], elr: &[i32], voters: &[i32]| {
            let seen = |number| {
                let mut node = node(number, replica(number == 1, 3, 5));
                node.voters = voters.to_vec();
                let partition = node.partitions.get_mut("orders-0").unwrap();
                (partition.isr, partition.elr) = (isr.to_vec(), elr.to_vec());
                node
            };
            dispensable(&[1, 2, 3].map(seen))
        };
        assert_eq!(three(&[1, 2], &[], &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(three(&[1], &[2], &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(three(&[1], &[], &[1, 2, 3]), [2, 3], "nobody else has everything");
        assert_eq!(three(&[1, 2], &[], &[1, 2, 4]), [3], "the fourth does not serve, and two have to vote");
        assert_eq!(dispensable(&[]), Vec::<i32>::new());
    }

    #[test]
    fn what_a_node_lacks_that_is_gone_is_not_waited_for() {
        let mut seen = [node(1, replica(true, 3, 5)), node(2, replica(false, 3, 4))];
        for node in &mut seen {
            node.partitions.values_mut().for_each(|partition| partition.isr = vec![1]);
        }
        assert_ne!(pending(&seen, 2, None), Vec::<String>::new());
        assert_eq!(pending(&seen, 2, Some(2)), Vec::<String>::new());
        assert_eq!(pending(&seen[..1], 2, Some(2)), Vec::<String>::new());
    }
}
