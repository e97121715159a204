//! Starting what a node does for the others, and they for it.

use io_backend::{Backend, Published, TaskHandle};

use super::membership::Membership;
use super::{ControllerContext, ControllerInbox, ControllerPost, giving_way, heartbeat, office, resigning};
use crate::ids::BrokerEpoch;
use crate::metadata::controller::ControllerSettings;
use crate::metadata::{BrokerProcess, borrow_when_needed};
use crate::replicas::Replicas;
use crate::stall::StorageHealth;

/// Starts the task `controller`: whenever this node leads the metadata, it is the cluster's controller.
pub fn start<B: Backend>(context: ControllerContext<B>, inbox: ControllerInbox<B>) -> TaskHandle {
    let cluster = &context.config.cluster_times;
    let settings = ControllerSettings {
        session_timeout: cluster.session_timeout,
        gone_timeout: (2 * cluster.heartbeat_interval).min(cluster.session_timeout),
        ..ControllerSettings::default()
    };
    let backend = context.backend.clone();
    backend.spawn("controller", office::Driver::new(context, settings, inbox.0).run())
}

/// Starts the task `heartbeat`, for the process that was granted this epoch, and what looks after it while its own metadata
/// stand still.
pub fn begin_heartbeats<B: Backend>(
    context: ControllerContext<B>,
    epoch: BrokerEpoch,
    controller: ControllerPost<B>,
    replicas: Replicas<B>,
    health: StorageHealth,
) -> (Membership<B>, Vec<TaskHandle>) {
    let membership = Membership {
        backend: context.backend.clone(),
        process: BrokerProcess { broker: context.node, epoch },
        metadata: context.metadata.clone(),
        health: health.clone(),
        wants_shutdown: Published::new("whether the node wants to stop", false),
        may_stop: Published::new("whether the node may stop", false),
    };
    let (backend, metadata, node) = (context.backend.clone(), context.metadata.clone(), context.node);
    let borrowing = borrow_when_needed(metadata.clone(), context.asks.clone(), health);
    let resigning = resigning::run(metadata, replicas.clone(), node);
    let beating = heartbeat::Beating::new(context, membership.clone(), controller.0, replicas);
    let tasks = vec![
        backend.spawn("heartbeat", beating.run()),
        backend.spawn("borrowed metadata", borrowing),
        backend.spawn("resignations", resigning),
    ];
    (membership, tasks)
}

/// Waits until this process is better ended, for its disk stands still and the others do without it; says why.
pub async fn until_given_up<B: Backend>(context: ControllerContext<B>, health: StorageHealth) -> String {
    giving_way::until_given_up(&context, &health).await
}
