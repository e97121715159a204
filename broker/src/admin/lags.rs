//! How far groups of consumers are, and how much they have before them: of the groups that this node coordinates.

use std::sync::Arc;

use io_backend::Backend;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::context::Context;
use crate::coordinator::GroupProgress;
use crate::ids::PartitionId;
use crate::limits;

/// Looked up from what is published: nobody is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLags {
    shown: Vec<GroupLag>,
    left_out: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct GroupLag {
    of: GroupProgress,
    /// None where this node has no replica of the partition, or not yet.
    lag: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    group: String,
    topic: String,
    partition: i32,
}

impl GroupLags {
    pub fn of<B: Backend>(context: &Context<B>) -> GroupLags {
        let (image, replicas) = (context.metadata.shown(), context.replicas.open().get());
        let lag = |of: &GroupProgress| {
            let topic = image.topics.get(&of.topic)?;
            let replica = replicas.get(&PartitionId { topic: topic.id, index: of.partition })?;
            let view = replica.views().get();
            let lag = view.high_watermark.0.saturating_sub(of.offset.0);
            match () {
                // Below zero: the log has lost what had been read.
                () if view.leading => Some(lag),
                // A follower hears of what is committed a little later than consumers may.
                () if view.following => Some(lag.max(0)),
                () => None,
            }
        };
        let mut lags = GroupLags::default();
        // Those of a group stand together.
        let mut counted: (Arc<str>, usize) = (Arc::from(""), 0);
        for progress in context.coordinators.progress() {
            lags.left_out += progress.left_out;
            for of in &progress.committed {
                let of_group = match counted {
                    (ref group, count) if *group == of.group.0 => count,
                    _ => 0,
                };
                counted = (of.group.0.clone(), of_group + 1);
                let is_shown = lags.shown.len() < limits::GROUP_LAGS_SHOWN_MAX
                    && of_group < limits::GROUP_LAGS_SHOWN_OF_ONE_MAX
                    && of.group.0.len() <= limits::GROUP_LAG_NAME_BYTES_MAX;
                match is_shown {
                    true => lags.shown.push(GroupLag { lag: lag(of), of: of.clone() }),
                    false => lags.left_out += 1,
                }
            }
        }
        lags
    }

    pub fn register(&self, registry: &mut Registry) {
        let (committed, lags) = (Family::<Labels, Gauge>::default(), Family::<Labels, Gauge>::default());
        for GroupLag { of, lag } in &self.shown {
            let text = |text: &Arc<str>| text.to_string();
            let labels = Labels { group: text(&of.group.0), topic: text(&of.topic), partition: of.partition };
            if let Some(lag) = lag {
                lags.get_or_create(&labels).set(*lag);
            }
            committed.get_or_create(&labels).set(of.offset.0);
        }
        registry.register(
            "chronik_group_committed_offset",
            "The next record that a group wants, of the groups that this node coordinates",
            committed,
        );
        registry.register(
            "chronik_group_lag_records",
            "Offsets up to the high watermark that a group has not committed, where this node has a replica of the partition",
            lags,
        );
        let left_out = Gauge::<i64>::default();
        left_out.set(i64::try_from(self.left_out).unwrap_or(i64::MAX));
        registry.register(
            "chronik_group_lags_left_out",
            "Partitions of groups that are not told of, since there are too many",
            left_out,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::ids::GroupId;
    use crate::ids::Offset;

    #[test]
    fn a_group_is_told_by_its_name_whatever_that_is_and_a_lag_that_is_not_known_is_not() {
        let of = |group: &str, partition: i32, offset: i64| GroupProgress {
            group: GroupId(Arc::from(group)),
            topic: Arc::from("orders"),
            partition,
            offset: Offset(offset),
        };
        let lags = GroupLags {
            shown: vec![
                GroupLag { of: of("a\"b\n", 0, 7), lag: Some(-2) },
                GroupLag { of: of("c", 1, 9), lag: None },
            ],
            left_out: 3,
        };
        let mut registry = Registry::default();
        lags.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"chronik_group_committed_offset{group="a\"b\n",topic="orders",partition="0"} 7"#,
            r#"chronik_group_lag_records{group="a\"b\n",topic="orders",partition="0"} -2"#,
            r#"chronik_group_committed_offset{group="c",topic="orders",partition="1"} 9"#,
            "chronik_group_lags_left_out 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains(r#"lag_records{group="c""#), "{text}");
    }
}
