//! How far a group is, beside how far its topics are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::output::{NOTHING, Table, or_nothing, say, say_json, warn};
use crate::client::groups::{Described, Member};
use crate::client::offsets::LATEST;
use crate::client::{Client, Failure, TopicPartition};

/// A partition that the group has committed, or that a member has.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    of: TopicPartition,
    current: Option<i64>,
    end: Option<i64>,
    /// Which of the members has it.
    member: Option<usize>,
}

impl Row {
    /// Records that are not read yet. It is below zero where the log has lost what had been read.
    fn lag(&self) -> Option<i64> {
        self.end.zip(self.current).map(|(end, current)| end - current)
    }
}

/// Of all; None while that of one is not known, or nobody has said what is read.
fn total(rows: &[Row]) -> Option<i64> {
    if rows.is_empty() {
        return None;
    }
    rows.iter().map(Row::lag).sum()
}

/// In the order of partitions.
fn rows(
    committed: &BTreeMap<TopicPartition, i64>,
    ends: &BTreeMap<TopicPartition, i64>,
    members: &[Member],
) -> Vec<Row> {
    let assigned: BTreeMap<&TopicPartition, usize> = members
        .iter()
        .enumerate()
        .flat_map(|(nth, member)| member.assignment.iter().map(move |of| (of, nth)))
        .collect();
    let all: BTreeSet<&TopicPartition> = committed.keys().chain(assigned.keys().copied()).collect();
    all.into_iter()
        .map(|of| Row {
            of: of.clone(),
            current: committed.get(of).copied(),
            end: ends.get(of).copied(),
            member: assigned.get(of).copied(),
        })
        .collect()
}

pub fn tell(client: &mut Client, group: &str, json: bool) -> Result<(), Failure> {
    let described = client.describe_group(group)?;
    let committed = client.committed(group)?;
    let topics = client.patiently(|client| client.metadata("list topics", None))?;
    let is_there = |of: &&TopicPartition| {
        topics.iter().any(|topic| topic.name == of.topic && topic.partition(of.partition).is_some())
    };
    let assigned = described.members.iter().flat_map(|member| &member.assignment);
    let wanted: BTreeSet<TopicPartition> =
        committed.keys().chain(assigned).filter(is_there).cloned().collect();
    let ends = client.offsets(&wanted, LATEST)?;
    let rows = rows(&committed, &ends.offsets, &described.members);
    match json {
        true => say_json(&document(&described, &rows))?,
        false => {
            if described.members.is_empty() {
                warn(&format!("group {group} has no members ({})", described.state));
            }
            say(&table(&described.members, &rows))?;
        }
    }
    Failure::of_all(ends.failures)
}

fn table(members: &[Member], rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "TOPIC",
        "PARTITION",
        "CURRENT-OFFSET",
        "LOG-END-OFFSET",
        "LAG",
        "CONSUMER-ID",
        "HOST",
        "CLIENT-ID",
    ]);
    let who = |member: Option<&Member>| match member {
        Some(member) => [member.id.clone(), member.host.clone(), member.client.clone()],
        None => [NOTHING; 3].map(String::from),
    };
    for row in rows {
        let mut cells = vec![row.of.topic.clone(), row.of.partition.to_string()];
        cells.extend([or_nothing(row.current), or_nothing(row.end), or_nothing(row.lag())]);
        cells.extend(who(row.member.and_then(|nth| members.get(nth))));
        table.row(cells);
    }
    for idle in members.iter().filter(|member| member.assignment.is_empty()) {
        let mut cells = [NOTHING; 5].map(String::from).to_vec();
        cells.extend(who(Some(idle)));
        table.row(cells);
    }
    table.text()
}

fn document(group: &Described, rows: &[Row]) -> Value {
    let partitions = rows.iter().map(|row| {
        let member = row.member.and_then(|nth| group.members.get(nth));
        json!({
            "topic": row.of.topic,
            "partition": row.of.partition,
            "current_offset": row.current,
            "log_end_offset": row.end,
            "lag": row.lag(),
            "consumer_id": member.map(|member| &member.id),
            "host": member.map(|member| &member.host),
            "client_id": member.map(|member| &member.client),
        })
    });
    json!({
        "group": group.group,
        "state": group.state,
        "members": group.members.len(),
        "lag": total(rows),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition { topic: "orders".into(), partition }
    }

    fn member(id: &str, assignment: &[i32]) -> Member {
        Member {
            id: id.into(),
            instance: None,
            client: "reader".into(),
            host: "/10.0.0.1".into(),
            assignment: assignment.iter().copied().map(at).collect(),
        }
    }

    #[test]
    fn each_partition_is_a_row_with_its_lag_and_who_has_it() {
        let committed = BTreeMap::from([(at(0), 7), (at(1), 12), (at(3), 5)]);
        let ends = BTreeMap::from([(at(0), 10), (at(1), 10), (at(2), 4)]);
        let members = [member("one", &[0]), member("two", &[1, 2]), member("idle", &[])];
        let rows = rows(&committed, &ends, &members);
        let told: Vec<_> = rows.iter().map(|row| (row.of.partition, row.lag(), row.member)).collect();
        let expected = [
            (0, Some(3), Some(0)),
            (1, Some(-2), Some(1)), // Behind what was committed: the log has lost records.
            (2, None, Some(1)),     // Nothing is committed yet.
            (3, None, None),        // The topic has no such partition any more.
        ];
        assert_eq!(told, expected);
        let text = table(&members, &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "orders          0               7              10    3  one          /10.0.0.1  reader"
        );
        assert_eq!(
            lines[5],
            "-               -               -               -    -  idle         /10.0.0.1  reader"
        );
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn the_whole_lag_is_known_when_that_of_each_partition_is() {
        let ends = BTreeMap::from([(at(0), 10), (at(1), 10)]);
        let of = |committed: &[(i32, i64)], assignment: &[i32]| {
            let committed = committed.iter().map(|(partition, offset)| (at(*partition), *offset)).collect();
            let rows = rows(&committed, &ends, &[member("one", assignment)]);
            let lags: Vec<Option<i64>> = rows.iter().map(Row::lag).collect();
            (total(&rows), lags)
        };
        assert_eq!(of(&[(0, 7), (1, 10)], &[0, 1]), (Some(3), vec![Some(3), Some(0)]));
        assert_eq!(of(&[(0, 7)], &[0, 1]), (None, vec![Some(3), None]), "partition 1 has no offset");
        assert_eq!(of(&[(0, 7), (2, 4)], &[]), (None, vec![Some(3), None]), "partition 2 has no end");
        assert_eq!(of(&[], &[]), (None, vec![]), "nothing is read");
    }
}
