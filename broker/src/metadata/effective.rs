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
    /// The process's configuration with what is set in the metadata over it.
    pub config: Arc<Config>,
    /// What is set in the metadata, for DescribeConfigs to tell where a value comes from.
    pub dynamic: Arc<Dynamic>,
}

/// Follows the image; owned by whoever applies to it.
pub(super) struct Following {
    base: Arc<Config>,
    node: BrokerId,
    seen: Arc<BrokerConfigs>,
    published: Published<Effective>,
}

impl Following {
    pub(super) fn new(base: Arc<Config>, node: BrokerId) -> Following {
        let effective = Effective { config: base.clone(), dynamic: Arc::default() };
        let published = Published::new("configuration in effect", effective);
        Following { base, node, seen: Arc::default(), published }
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
        let of_this = configs.of_one.get(&self.node).cloned().unwrap_or_default();
        let dynamic = Dynamic { of_all: configs.of_all.clone(), of_this };
        if *self.published.get().dynamic == dynamic {
            return;
        }
        let config = Arc::new(self.base.with(&dynamic));
        self.published.publish(Effective { config, dynamic: Arc::new(dynamic) });
    }
}
