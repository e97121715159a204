//! The configuration in effect on this node: its own, under what is set of brokers while they run.

use std::sync::Arc;

use io_backend::Published;

use super::BrokerConfigs;
use crate::config::Config;
use crate::config::dynamic::Dynamic;
use crate::ids::BrokerId;

/// Read anew for each use: it may change at any time.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The process's configuration: of file, variables and flags.
    pub own: Arc<Config>,
    /// The same with what is set in the metadata over it.
    pub config: Arc<Config>,
    /// What is set in the metadata, for DescribeConfigs to tell where a value comes from.
    pub dynamic: Arc<Dynamic>,
}

/// Follows the image; owned by whoever applies to it.
pub(super) struct Following {
    node: BrokerId,
    seen: Arc<BrokerConfigs>,
    published: Published<Effective>,
}

impl Effective {
    fn alone(own: Arc<Config>) -> Effective {
        Effective { config: own.clone(), dynamic: Arc::default(), own }
    }

    /// What is in effect on this node with these set instead.
    pub(super) fn under(&self, node: BrokerId, configs: &BrokerConfigs) -> Effective {
        let of_this = configs.of_one.get(&node).cloned().unwrap_or_default();
        let dynamic = Dynamic { of_all: configs.of_all.clone(), of_this };
        if *self.dynamic == dynamic {
            return self.clone();
        }
        let (own, config) = (self.own.clone(), Arc::new(self.own.with(&dynamic)));
        Effective { own, config, dynamic: Arc::new(dynamic) }
    }
}

impl Following {
    pub(super) fn new(own: Arc<Config>, node: BrokerId) -> Following {
        let published = Published::new("configuration in effect", Effective::alone(own));
        Following { node, seen: Arc::default(), published }
    }

    pub(super) fn published(&self) -> &Published<Effective> {
        &self.published
    }

    /// Publishes what these come to here, if they have changed.
    pub(super) fn follow(&mut self, configs: &Arc<BrokerConfigs>) {
        if Arc::ptr_eq(&self.seen, configs) || self.seen == *configs {
            return;
        }
        self.seen = configs.clone();
        let before = self.published.get();
        let now = before.under(self.node, configs);
        if !Arc::ptr_eq(&before.dynamic, &now.dynamic) {
            self.published.publish(now);
        }
    }
}
