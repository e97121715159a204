//! A disk that changes what it was given: what is missing has been told, to whoever it concerns.
//!
//! No node can keep what its only disk loses. It may not serve anything else in its place, which all other checkers go on
//! asking for; and it says what it has lost: with an error to the reader, by naming the partition in its health, or by
//! refusing to start with a message that names the file.

use std::collections::BTreeSet;

use reports::Violation;

use super::causes::plain;
use super::circumstances::{Circumstances, End};
use crate::fault::FaultKind;
use crate::history::{History, Place, Readiness};

/// Status of a start that does not trust its data directory.
const DATA_DIRECTORY: i32 = 3;

/// What was told of losses.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// A start was refused, with the name of a file: nothing of the node can be relied on.
    node: bool,
    places: BTreeSet<Place>,
    /// Those that the node's health named: what does not open is not written to either.
    named: BTreeSet<Place>,
}

/// Whether faults on this node changed what its disk holds; absent: everything acknowledged has to be there.
pub fn told(history: &History, circumstances: &Circumstances, node: &str) -> Option<Told> {
    circumstances.faults_of(node, corrupts).next()?;
    let mut told = Told::default();
    for life in circumstances.lives(node) {
        if let Some((_, End::Exited(DATA_DIRECTORY, why))) = &life.end {
            told.node |= names_a_file(why);
        }
    }
    for complaint in &history.complaints {
        if matches!(plain(&complaint.error).as_str(), "corruptmessage" | "kafkastorageerror") {
            told.places.extend(complaint.place.clone());
        }
    }
    let places: BTreeSet<&Place> = history.sends.iter().map(|send| &send.place).collect();
    for check in &history.health {
        if let Readiness::NotReady(why) | Readiness::ReadyBut(why) = &check.answer {
            let named = places.iter().filter(|place| names(why, place));
            told.named.extend(named.map(|place| (*place).clone()));
        }
    }
    told.places.extend(told.named.iter().cloned());
    Some(told)
}

pub fn corrupts(kind: FaultKind) -> bool {
    use FaultKind::*;
    matches!(kind, TornWrite | LostWrite | MisdirectedWrite | BitRot)
}

fn names_a_file(why: &str) -> bool {
    why.split_whitespace().any(|word| word.matches('/').count() >= 2)
}

/// `orders-1` is not named by `orders-12`.
fn names(text: &str, place: &Place) -> bool {
    let name = place.to_string();
    text.match_indices(&name)
        .any(|(at, _)| !text[at + name.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

impl Told {
    /// Whether a loss in this place has been told of.
    pub fn covers(&self, place: &Place) -> bool {
        self.node || self.places.contains(place)
    }

    /// Findings about what is missing, without those that were told of. The checkers of losses name the partition.
    pub fn without_told(&self, found: Vec<Violation>) -> Vec<Violation> {
        let told = |what: &str| self.node || self.places.iter().any(|place| names(what, place));
        found.into_iter().filter(|violation| !told(&violation.what)).collect()
    }

    /// Findings about partitions that take nothing, without those that the node itself says it does not serve. That a later
    /// start is refused says nothing about the time before.
    pub fn without_named(&self, found: Vec<Violation>) -> Vec<Violation> {
        let told = |what: &str| self.named.iter().any(|place| names(what, place));
        found.into_iter().filter(|violation| !told(&violation.what)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reports::Verdict;

    use crate::checker::Findings;
    use crate::checker::circumstances::Life;
    use crate::checker::{log, stories::*};
    use crate::fault::{Fault, FaultHits};
    use crate::history::{Complaint, HealthCheck, Trade};

    fn circumstances(kind: FaultKind, why: Option<&str>) -> Circumstances {
        let hit = FaultHits::once(Fault::new(kind).on(1), 5, 5);
        let end = why.map(|why| (9, End::Exited(3, why.to_owned())));
        let life = Life { node: "node1".into(), incarnation: 1, end, ..Life::default() };
        Circumstances::new(vec![hit], vec![life], 100)
    }

    fn lost() -> History {
        ending_with(vec![acked(0, 0), acked(1, 1)], &[(0, 0)])
    }

    /// How many losses are left to be found.
    fn left(history: &History, circumstances: &Circumstances) -> Option<usize> {
        let told = told(history, circumstances, "node1")?;
        Some(told.without_told(log::lost_writes(history)).len())
    }

    #[test]
    fn only_a_disk_that_corrupts_changes_what_is_owed() {
        assert_eq!(left(&lost(), &circumstances(FaultKind::DiskFull, None)), None);
        assert_eq!(left(&lost(), &circumstances(FaultKind::SyncFails, None)), None);
    }

    #[test]
    fn a_loss_that_nobody_was_told_of_is_found() {
        assert_eq!(left(&lost(), &circumstances(FaultKind::BitRot, None)), Some(1));
        assert_eq!(left(&lost(), &circumstances(FaultKind::BitRot, Some("something is wrong"))), Some(1));
    }

    #[test]
    fn an_error_a_named_partition_or_a_named_file_tells_of_it() {
        let rot = circumstances(FaultKind::BitRot, None);
        let mut history = lost();
        history.complaints.push(Complaint {
            client: "client-1".into(),
            trade: Trade::Consume,
            place: Some(place()),
            error: "CORRUPT_MESSAGE".into(),
            sent: 1,
            at: 2,
            routed: None,
        });
        assert_eq!(left(&history, &rot), Some(0));
        for (why, count) in [("orders-0 is damaged", 0), ("orders-01 is damaged", 1)] {
            let answer = Readiness::NotReady(why.into());
            let health = vec![HealthCheck { node: 1, asked: 1, at: 2, answer }];
            assert_eq!(left(&History { health, ..lost() }, &rot), Some(count), "{why}");
        }
        // An error may have been told for many reasons: it does not say that a partition is not served.
        let waits = |history: &History| {
            let mut findings = Findings::of("acknowledged-when-clear", Verdict::Freeze);
            findings.add("producer 1 waits for orders-0 since 4 s".into());
            told(history, &rot, "node1").unwrap().without_named(findings.all()).len()
        };
        assert_eq!(waits(&history), 1);
        let answer = Readiness::NotReady("orders-0 is damaged".into());
        history.health.push(HealthCheck { node: 1, asked: 1, at: 2, answer });
        assert_eq!(waits(&history), 0);
        let refused = circumstances(FaultKind::BitRot, Some("/data/journal/3.journal: damaged at 4096"));
        assert_eq!(left(&lost(), &refused), Some(0));
    }
}
