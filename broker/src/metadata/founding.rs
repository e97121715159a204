//! How a node with an empty Raft journal comes to its group, decided from what the others say.
//!
//! A group of several forms once: when all configured nodes say, within one round of questions that is shorter than any
//! election, that they are empty. Then each of them begins it with the same snapshot. A node that comes later finds a
//! group; was its directory among those that began it, it has never voted and begins it too, and otherwise, being wiped or
//! new, it joins without a vote.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use io_backend::{Backend, Deadline};
use serde::{Deserialize, Serialize};

use super::membership::{Founder, Membership, Stage};
use crate::ids::BrokerId;
use crate::peers::asks::{AskError, Asks, Subject};

/// How long a round of questions may take: less than any election.
const ROUND: Duration = Duration::from_millis(300);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said what is waited for.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// What a node says when it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
pub enum Standing {
    /// It has no group and knows of none.
    Empty {
        /// Its directory.
        storage: Founder,
        /// What the cluster is called if this is the first of its nodes.
        cluster_id: String,
    },
    /// There is a group.
    Group {
        /// Of which cluster.
        cluster_id: String,
        /// Who began it, where that is known.
        founders: Vec<Founder>,
    },
}

/// What follows from a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet: these have not answered.
    Wait(Vec<BrokerId>),
    /// It begins the group, or comes to it.
    Go(Membership),
}

/// Decides for `own`, which would call the cluster `cluster_id`, from what each of the others said in a round.
pub fn decide(own: Founder, cluster_id: &str, others: &BTreeMap<BrokerId, Option<Standing>>) -> Decision {
    let groups = || {
        others.values().flatten().filter_map(|standing| match standing {
            Standing::Group { cluster_id, founders } => Some((cluster_id, founders)),
            Standing::Empty { .. } => None,
        })
    };
    let go = |stage, cluster_id: &String, founders| {
        Decision::Go(Membership { cluster_id: cluster_id.clone(), stage, founders })
    };
    if let Some((cluster_id, _)) = groups().find(|(_, founders)| !founders.contains(&own)) {
        return go(Stage::Joining, cluster_id, Vec::new());
    }
    let silent = || others.iter().filter(|(_, said)| said.is_none()).map(|(node, _)| *node);
    if let Some((cluster_id, founders)) = groups().next() {
        // Most of them have to agree: one alone may have counted a directory that was wiped since.
        let agree = 1 + founders.iter().filter(|founder| agrees(others.get(&founder.node), founder)).count();
        return match 2 * agree > founders.len() {
            true => go(Stage::Founding, cluster_id, founders.clone()),
            false => Decision::Wait(silent().collect()),
        };
    }
    if silent().next().is_some() {
        return Decision::Wait(silent().collect());
    }
    let empty = others.values().flatten().filter_map(|standing| match standing {
        Standing::Empty { storage, cluster_id } => Some((*storage, cluster_id.as_str())),
        Standing::Group { .. } => None,
    });
    let mut all: BTreeMap<Founder, &str> = empty.collect();
    all.insert(own, cluster_id);
    let Some((_, first)) = all.first_key_value() else { return Decision::Wait(Vec::new()) };
    go(Stage::Founding, &(*first).to_owned(), all.keys().copied().collect())
}

/// Whether what this founder says fits that it began the group with that directory, or is about to.
fn agrees(said: Option<&Option<Standing>>, founder: &Founder) -> bool {
    match said {
        Some(Some(Standing::Empty { storage, .. })) => storage == founder,
        Some(Some(Standing::Group { founders, .. })) => founders.contains(founder),
        _ => false,
    }
}

/// Asks the others again and again until they have decided it. What is missing at the deadline is the error.
pub async fn agree<B: Backend>(
    backend: &B,
    asks: &Asks<B>,
    own: Founder,
    cluster_id: &str,
    deadline: Deadline,
) -> Result<Membership, Vec<BrokerId>> {
    let mut said = backend.now();
    loop {
        let round = Deadline::after(backend, ROUND);
        let questions = asks.peers().all().map(|node| async move {
            let answer = asks.ask(node, Subject::Founding, &[], round).await;
            (node, answer.and_then(|answer| read(node, &answer)).ok())
        });
        let others: BTreeMap<BrokerId, Option<Standing>> = join_all(questions).await.into_iter().collect();
        // Longer ago than a round is too long ago, whatever held this node up.
        let in_time = !round.has_passed(backend) || others.values().all(Option::is_none);
        let missing = match decide(own, cluster_id, &others) {
            Decision::Go(membership) if in_time => return Ok(membership),
            Decision::Go(_) => Vec::new(),
            Decision::Wait(missing) => missing,
        };
        if deadline.has_passed(backend) {
            return Err(missing);
        }
        if backend.now().since(said) >= SAID_EVERY {
            said = backend.now();
            tracing::warn!(
                missing = %listed(&missing),
                "this node has no metadata yet and begins with all nodes of cluster.peers: some do not answer. Start them, or \
                 correct their addresses"
            );
        }
        backend.sleep(PAUSE).await;
    }
}

/// Numbers of nodes, for people.
pub fn listed(nodes: &[BrokerId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn read(node: BrokerId, answer: &[u8]) -> Result<Standing, AskError> {
    serde_json::from_slice(answer).map_err(|_| AskError::Unanswered(node))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::StorageId;

    fn founder(node: i32, storage: u128) -> Founder {
        Founder { node: BrokerId(node), storage: StorageId(Uuid::from_u128(storage)) }
    }

    fn empty(node: i32, storage: u128) -> Option<Standing> {
        Some(Standing::Empty { storage: founder(node, storage), cluster_id: format!("of {node}") })
    }

    fn group(founders: &[(i32, u128)]) -> Option<Standing> {
        let founders = founders.iter().map(|(node, storage)| founder(*node, *storage)).collect();
        Some(Standing::Group { cluster_id: "group".into(), founders })
    }

    fn decided(own: (i32, u128), others: [(i32, Option<Standing>); 2]) -> String {
        let others = others.into_iter().map(|(node, said)| (BrokerId(node), said)).collect();
        match decide(founder(own.0, own.1), &format!("of {}", own.0), &others) {
            Decision::Wait(missing) => format!("waits for {}", listed(&missing)),
            Decision::Go(Membership { cluster_id, stage, founders }) => {
                let nodes: Vec<BrokerId> = founders.iter().map(|founder| founder.node).collect();
                format!("{stage:?} {cluster_id} with {}", listed(&nodes))
            }
        }
    }

    #[test]
    fn a_group_forms_once_when_all_are_empty_and_later_ones_come_to_it() {
        let all = [(1, 1), (2, 2), (3, 3)];
        let table = [
            ("all are empty", (2, 2), [(1, empty(1, 1)), (3, empty(3, 3))], "Founding of 1 with 1, 2, 3"),
            (
                "the first says the same",
                (1, 1),
                [(2, empty(2, 2)), (3, empty(3, 3))],
                "Founding of 1 with 1, 2, 3",
            ),
            ("one is silent", (2, 2), [(1, empty(1, 1)), (3, None)], "waits for 3"),
            ("one has begun", (2, 2), [(1, group(&all)), (3, empty(3, 3))], "Founding group with 1, 2, 3"),
            (
                "one has begun, one is gone",
                (2, 2),
                [(1, group(&all)), (3, None)],
                "Founding group with 1, 2, 3",
            ),
            ("both have begun", (2, 2), [(1, group(&all)), (3, group(&all))], "Founding group with 1, 2, 3"),
            ("this one was wiped", (2, 9), [(1, group(&all)), (3, None)], "Joining group with "),
            ("a node alone that grows", (2, 2), [(1, group(&[])), (3, empty(3, 3))], "Joining group with "),
            (
                "another was wiped since: this one alone counts nothing",
                (3, 3),
                [(1, None), (2, None)],
                "waits for 1, 2",
            ),
            (
                "one of two groups does not know it",
                (2, 9),
                [(1, group(&all)), (3, group(&[(1, 1), (2, 9), (3, 3)]))],
                "Joining group with ",
            ),
        ];
        for (case, own, others, expected) in table {
            assert_eq!(decided(own, others), expected, "{case}");
        }
    }

    #[test]
    fn of_five_most_have_to_agree() {
        let all = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)];
        let said = |answers: &[(i32, Option<Standing>)]| {
            let others = answers.iter().map(|(node, said)| (BrokerId(*node), said.clone())).collect();
            decide(founder(5, 5), "of 5", &others)
        };
        let one = said(&[(1, group(&all)), (2, None), (3, None), (4, None)]);
        assert_eq!(one, Decision::Wait([2, 3, 4].map(BrokerId).to_vec()));
        let wiped = said(&[(1, group(&all)), (2, empty(2, 7)), (3, None), (4, None)]);
        assert_eq!(wiped, Decision::Wait([3, 4].map(BrokerId).to_vec()));
        let most = said(&[(1, group(&all)), (2, empty(2, 2)), (3, None), (4, None)]);
        assert!(matches!(most, Decision::Go(Membership { stage: Stage::Founding, .. })), "{most:?}");
    }
}
