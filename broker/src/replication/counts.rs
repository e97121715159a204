//! What operators are shown of replication, from the image and from where followers are.

use io_backend::Backend;

use super::context::ReplicationContext;
use super::isr::Led;
use crate::metadata::MetadataImage;
use crate::metrics::BrokerLabel;

/// Who leads nobody's partition, and of what is led here who lacks what, as this image says.
pub fn count_partitions<B: Backend>(context: &ReplicationContext<B>, image: &MetadataImage) {
    let (mut under_replicated, mut under_min, mut offline) = (0, 0, 0);
    for topic in image.topics.values() {
        let set = image.min_insync_replicas_set(topic);
        for partition in topic.partitions.iter().filter(|one| one.replica(context.node).is_some()) {
            match partition.leader {
                None => offline += 1,
                Some(leader) if leader == context.node => {
                    under_replicated += i64::from(partition.isr.len() < partition.replicas.len());
                    under_min += i64::from(partition.isr.len() < partition.min_insync_replicas(set));
                }
                Some(_) => {}
            }
        }
    }
    let metrics = &context.metrics;
    metrics.replication_under_replicated.set(under_replicated);
    metrics.replication_under_min_isr.set(under_min);
    metrics.replication_offline.set(offline);
}

/// What followers have yet to sync: of these, for of what is settled they have all.
pub fn count_lags<B: Backend>(context: &ReplicationContext<B>, led: &[Led]) {
    for peer in context.peers.all() {
        let lags = led.iter().flat_map(|led| {
            let of = led.followers.iter().filter(move |(follower, ..)| *follower == peer);
            of.map(|(_, _, synced)| led.log_end.0 - synced.map_or(led.high_watermark.0, |synced| synced.0))
        });
        context.metrics.replication_lag.get_or_create(&BrokerLabel { broker: peer.0 }).set(lags.sum());
    }
}
