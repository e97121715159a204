//! Checkers: what must be true of a history, whatever happened.
//!
//! Each is a pure function from what clients saw and what the world observed to what is wrong with it, and
//! each has a test in which it rejects a bad history. A checker that finds nothing has a name that says what
//! was looked for, so that a passing run says what it passed.

pub mod beginnings;
pub mod stalls;
pub mod budgets;
pub mod circumstances;
pub mod answers;
pub mod causes;
pub mod configs;
pub mod corruption;
pub mod endings;
pub mod epochs;
pub mod log;
pub mod compaction;
pub mod groups;
pub mod lookups;
pub mod overdue;
pub mod polls;
pub mod recovery;
pub mod refusals;
pub mod rest;
pub mod segments;
pub mod kept_records;
pub mod replicas;
pub mod replica_logs;
pub mod sends;
pub mod served;
pub mod syncs;
pub mod unacknowledged;
pub mod visibility;

#[cfg(test)]
pub(crate) mod stories;

use reports::{Verdict, Violation};

/// Every checker with what it asks for.
pub const ALL: [(&str, &str); 56] = [
    (
        "ack-before-sync",
        "an acknowledgement leaves after the sync that covers the record, in a file whose name is durable",
    ),
    (
        "acknowledged-when-clear",
        "when nothing has been broken for a while, each producer gets through to each partition, and goes on to; files of one partition that fail are no excuse for another",
    ),
    ("aborted-read", "what was refused for good is read by nobody"),
    ("answered-by-deadline", "a request whose way is free is answered by its deadline"),
    (
        "assigned-when-clear",
        "when nothing has been broken for a while, each member of a group is told what it reads, and what is acknowledged then its group commits soon",
    ),
    (
        "back-to-idle",
        "memory, descriptors, sockets and tasks are given back when the load is over, and the node counts nothing as under way",
    ),
    ("budget", "a limit that the scenario names is kept"),
    (
        "compacted-differs",
        "what stands at an offset of a compacted topic is what was written there, in the order of offsets, whoever reads it; a record without a key is refused",
    ),
    (
        "compacted-lost",
        "the last record of each key of a compacted topic is there, or was a tombstone long enough, and nothing older comes back",
    ),
    (
        "compacted-undeleted",
        "what is deleted on request from a topic that is compacted and deleted from is not read by anybody who begins later, and nothing is deleted on request from one that is compacted only",
    ),
    ("crash", "no process panics, or ends by itself without a fault on its machine that explains its status"),
    ("deleted-too-early", "what a log does not have any more was old, too much, or asked to be deleted"),
    ("duplicate", "no record stands in a log more often than its attempts explain"),
    ("error-without-cause", "an error that a client is told has a cause that was there"),
    ("fired-and-lost", "when nothing is broken, what is sent with acks=0 gets there"),
    ("foreign-record", "nothing is served that nobody sent there"),
    ("gap", "the offsets of a log follow one another"),
    (
        "group-behind",
        "a group whose members have all the time gets to every acknowledged record, and says so",
    ),
    ("group-skip", "how far a group is, its members have read"),
    ("group-untold", "when all has come to rest, the coordinator of each group tells how far it is"),
    ("high-watermark-back", "a high watermark that was told is never taken back"),
    ("images-differ", "the metadata images of two nodes are equal at equal index"),
    ("in-sync", "who is in sync has on its disk what its leader calls committed"),
    ("inconsistent-offset", "an offset holds one value, whoever sees it whenever"),
    (
        "kept-too-long",
        "what need not be kept any more is gone in time, counted while nothing that the node needs for it is broken",
    ),
    ("left-in-flight", "a process that has stopped waits for nothing any more"),
    ("left-to-do", "a start after a polite stop has nothing to make good"),
    ("livelock", "a run comes to its end"),
    (
        "log-start-back",
        "a log never starts before where one node has told it to start, as that node tells it, nor before where a deletion was acknowledged, whoever tells it",
    ),
    (
        "lost-config",
        "a configuration that was changed is told as it was changed, over restarts and in the end",
    ),
    ("lost-topic", "a topic whose creation was answered is there in the end"),
    ("lost-write", "what was acknowledged, or read, is there in the end"),
    ("non-monotonic-poll", "a consumer is not led back"),
    ("non-monotonic-send", "a producer is told offsets in the order of what it sent"),
    (
        "not-compacted",
        "when nothing is broken any more and there was time for it, no more is left of a compacted topic than the scenario says",
    ),
    (
        "not-converged",
        "when nothing is broken any more, every partition has a leader, all replicas are in sync and say the same, before all nodes are ended and started again and after it; whoever is not done says why",
    ),
    (
        "out-of-range",
        "an offset is out of range only where the log starts behind it, as the same node tells it",
    ),
    ("poll-skip", "a consumer is not led past records"),
    ("polite-stop", "a process that is asked to stop does so within its bound, each of them"),
    ("producer-state", "an idempotent producer that left nothing out is not told that it did"),
    ("reads-only-durable", "a record is read only once it is durable"),
    (
        "replicas-differ",
        "when all has come to rest, the replicas of a partition have the same batches, and of a compacted topic what they come to",
    ),
    (
        "retained-files",
        "when all is quiet, the files of a partition are what is to be kept and a segment more, each of them a segment's",
    ),
    ("refused-at-once", "while the disk stands still, who is refused is refused at once"),
    ("segment-files", "segments keep their bounds, and their indexes say what is in them"),
    ("served-beside-others", "a client that asks little is answered within seconds whatever others do"),
    ("silent-refusal", "a node that takes no writes does not call itself ready, and says why"),
    ("stale-leader", "a leader has stopped when it is fenced, and serves nobody when the next one does"),
    ("standstill", "requests are decided, and do not only run out of time"),
    ("two-leaders", "in an epoch of a partition one process leads"),
    (
        "two-owners",
        "no two members of a group own a partition at a time: in a classic group in one generation, in a consumer group until it is given up; and who is of a generation or an epoch that is over commits no more",
    ),
    ("unreadable", "every partition can be read to its end in the end"),
    ("unseen", "a consumer that has all the time gets to every acknowledged record"),
    (
        "wrong-epoch",
        "a client whose leader epoch is behind or ahead is told so, and an epoch ends where the records say so",
    ),
    (
        "wrong-group-position",
        "how far a group is told to be was committed, and nothing acknowledged is forgotten",
    ),
    ("wrong-look-up", "an offset that is looked up is right, for every moment of the request"),
];

/// At most this many findings of one checker are kept: the first tell the story.
const KEPT: usize = 20;

/// Of sorted values.
pub fn quantile(sorted: &[crate::history::At], share: f64) -> Option<crate::history::At> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

/// What a checker found wrong.
pub(crate) struct Findings {
    checker: &'static str,
    verdict: Verdict,
    found: Vec<Violation>,
    more: usize,
}

impl Findings {
    pub(crate) fn of(checker: &'static str, verdict: Verdict) -> Findings {
        debug_assert!(ALL.iter().any(|(known, _)| *known == checker), "{checker} is no checker");
        Findings { checker, verdict, found: Vec::new(), more: 0 }
    }

    pub(crate) fn add(&mut self, what: String) {
        if self.found.len() >= KEPT {
            self.more += 1;
            return;
        }
        self.found.push(Violation { checker: self.checker.to_owned(), verdict: self.verdict, what });
    }

    pub(crate) fn all(mut self) -> Vec<Violation> {
        if self.more > 0
            && let Some(last) = self.found.last_mut()
        {
            last.what = format!("{} (and {} more)", last.what, self.more);
        }
        self.found
    }
}

/// The gravest of what was found: a crash explains a loss, a loss outweighs a standstill.
pub fn verdict(violations: &[Violation]) -> Verdict {
    [Verdict::Nondeterminism, Verdict::Crash, Verdict::Safety, Verdict::Freeze, Verdict::Budget]
        .into_iter()
        .find(|verdict| violations.iter().any(|violation| violation.verdict == *verdict))
        .unwrap_or(Verdict::Pass)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_checker_is_in_the_document_as_it_is_here() {
        let document = include_str!("../../../docs/checkers.md");
        for (name, about) in ALL {
            assert!(
                document.contains(&format!("| `{name}` | {about} |")),
                "{name} is not in docs/checkers.md"
            );
        }
    }

    #[test]
    fn the_gravest_finding_is_the_verdict() {
        let found = |verdict| Violation { checker: "x".into(), verdict, what: String::new() };
        assert_eq!(verdict(&[]), Verdict::Pass);
        assert_eq!(verdict(&[found(Verdict::Budget), found(Verdict::Freeze)]), Verdict::Freeze);
        assert_eq!(verdict(&[found(Verdict::Freeze), found(Verdict::Safety)]), Verdict::Safety);
        assert_eq!(verdict(&[found(Verdict::Safety), found(Verdict::Crash)]), Verdict::Crash);
    }
}
