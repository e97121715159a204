//! Setting the offsets of a group: what they would be, and, where that is wanted, that they are.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use kafka_protocol::ResponseError;
use serde_json::json;

use super::arguments::{Selection, datetime, selection};
use super::output::{Table, or_nothing, say, say_json, warn};
use crate::client::offsets::{EARLIEST, LATEST, partitions};
use crate::client::{Client, Failure, TopicPartition};

#[derive(Args)]
pub struct Reset {
    group: String,
    #[command(flatten)]
    to: To,
    /// TOPIC, TOPIC:0,2 or TOPIC:4-7; may be given several times
    #[arg(long, value_name = "TOPIC", value_parser = selection, required_unless_present = "all_topics")]
    topic: Vec<Selection>,
    /// All partitions of which the group has committed something
    #[arg(long, conflicts_with = "topic")]
    all_topics: bool,
    /// Do it; without this it is only shown
    #[arg(long)]
    execute: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct To {
    /// To the first record
    #[arg(long)]
    to_earliest: bool,
    /// To behind the last record
    #[arg(long)]
    to_latest: bool,
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// On by so many offsets, or back with a minus
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To the first record from this time on, in UTC
    #[arg(long, value_name = "TIME", value_parser = datetime)]
    to_datetime: Option<i64>,
}

/// Where a partition's offset goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Earliest,
    Latest,
    Offset(i64),
    ShiftBy(i64),
    /// That of the first record from some time on, if there is one.
    Found(Option<i64>),
}

/// The new offset, within what the partition has. None where a shift has nothing to go from.
fn target(to: Target, current: Option<i64>, earliest: i64, latest: i64) -> Option<i64> {
    let wanted = match to {
        Target::Earliest => earliest,
        Target::Latest | Target::Found(None) => latest,
        Target::Offset(offset) | Target::Found(Some(offset)) => offset,
        Target::ShiftBy(by) => current?.saturating_add(by),
    };
    Some(wanted.clamp(earliest, latest.max(earliest)))
}

impl To {
    fn target(&self, found: Option<i64>) -> Target {
        match (self.to_offset, self.shift_by, self.to_datetime) {
            (Some(offset), _, _) => Target::Offset(offset),
            (_, Some(by), _) => Target::ShiftBy(by),
            (_, _, Some(_)) => Target::Found(found),
            _ if self.to_latest => Target::Latest,
            _ => Target::Earliest,
        }
    }
}

impl Reset {
    pub fn run(&self, client: &mut Client, json: bool) -> Result<(), Failure> {
        self.is_without_members(client)?;
        let committed = client.committed(&self.group)?;
        let wanted = self.wanted(client, &committed)?;
        let earliest = client.offsets(&wanted, EARLIEST)?.whole()?;
        let latest = client.offsets(&wanted, LATEST)?.whole()?;
        let found = match self.to.to_datetime {
            Some(time) => client.offsets(&wanted, time)?.whole()?,
            None => BTreeMap::new(),
        };
        let mut offsets = BTreeMap::new();
        for of in &wanted {
            let current = committed.get(of).copied();
            let to = self.to.target(found.get(of).copied());
            let ends = earliest.get(of).zip(latest.get(of));
            let new = ends.and_then(|(earliest, latest)| target(to, current, *earliest, *latest));
            let new = new.ok_or_else(|| {
                Failure::Usage(format!(
                    "group {} has committed nothing of partition {of} that could be shifted: --to-earliest, --to-latest, --to-offset and --to-datetime do without",
                    self.group
                ))
            })?;
            offsets.insert(of.clone(), new);
        }
        if self.execute {
            client.commit(&self.group, &offsets)?;
        }
        self.tell(&committed, &offsets, json)
    }

    /// Where a member goes on by itself, an offset that others set is soon overwritten; the coordinator refuses it as well.
    fn is_without_members(&self, client: &mut Client) -> Result<(), Failure> {
        match client.describe_group(&self.group) {
            Ok(group) if group.members.is_empty() => Ok(()),
            Ok(group) => Err(Failure::Refused {
                what: format!(
                    "reset offsets of group {}, which is {} with {} members",
                    self.group,
                    group.state,
                    group.members.len()
                ),
                code: ResponseError::NonEmptyGroup,
                message: String::new(),
                node: format!("node {}", group.coordinator),
            }),
            // It begins with these.
            Err(failure) if failure.code() == Some(ResponseError::GroupIdNotFound) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    fn wanted(
        &self,
        client: &mut Client,
        committed: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeSet<TopicPartition>, Failure> {
        let all = client.patiently(|client| client.metadata("list topics", None))?;
        let mut wanted = BTreeSet::new();
        if self.all_topics {
            let there: BTreeSet<TopicPartition> = all.iter().flat_map(partitions).collect();
            wanted.extend(committed.keys().filter(|of| there.contains(of)).cloned());
            if wanted.is_empty() {
                let group = &self.group;
                return Err(Failure::Usage(format!(
                    "group {group} has committed nothing: --topic says of which topic"
                )));
            }
        }
        for selection in &self.topic {
            let topic = all.iter().find(|topic| topic.name == selection.topic);
            let topic = topic.ok_or_else(|| Failure::Refused {
                what: format!("topic {}", selection.topic),
                code: ResponseError::UnknownTopicOrPartition,
                message: String::new(),
                node: "the metadata".into(),
            })?;
            wanted.extend(selection.of(topic)?);
        }
        Ok(wanted)
    }

    fn tell(
        &self,
        committed: &BTreeMap<TopicPartition, i64>,
        offsets: &BTreeMap<TopicPartition, i64>,
        json: bool,
    ) -> Result<(), Failure> {
        if json {
            let all = offsets.iter().map(|(of, new)| {
                json!({
                    "topic": of.topic,
                    "partition": of.partition,
                    "current_offset": committed.get(of),
                    "new_offset": new,
                })
            });
            let partitions: Vec<_> = all.collect();
            return say_json(
                &json!({ "group": self.group, "executed": self.execute, "partitions": partitions }),
            );
        }
        let mut table = Table::new(&["TOPIC", "PARTITION", "CURRENT-OFFSET", "NEW-OFFSET"]);
        for (of, new) in offsets {
            let current = or_nothing(committed.get(of));
            table.row(vec![of.topic.clone(), of.partition.to_string(), current, new.to_string()]);
        }
        say(&table.text())?;
        if !self.execute {
            warn("nothing was changed; --execute does it");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_offset_is_one_that_the_partition_has() {
        // The partition has the offsets 10 to 99.
        let cases = [
            (Target::Earliest, None, Some(10)),
            (Target::Latest, Some(5), Some(100)),
            (Target::Offset(50), Some(70), Some(50)),
            (Target::Offset(3), None, Some(10)),
            (Target::Offset(1_000), None, Some(100)),
            (Target::ShiftBy(5), Some(50), Some(55)),
            (Target::ShiftBy(-50), Some(50), Some(10)),
            (Target::ShiftBy(i64::MAX), Some(50), Some(100)),
            (Target::ShiftBy(5), None, None),
            (Target::Found(Some(42)), None, Some(42)),
            (Target::Found(None), Some(20), Some(100)),
        ];
        for (to, current, expected) in cases {
            assert_eq!(target(to, current, 10, 100), expected, "{to:?} from {current:?}");
        }
    }
}
