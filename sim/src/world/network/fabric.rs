//! What lies between hosts: the links, which of the hosts are up, and how much of what has come a read is given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::links::{Links, Transit};
use crate::fault::ActiveFaults;
use crate::streams::Stream;
use crate::world::host::Host;
use crate::world::kernel::Kernel;
use crate::world::lock;

/// Of a thousand reads so many get less than there is.
const SHORT_READS: u32 = 60;

pub struct Fabric {
    pub(super) kernel: Arc<Kernel>,
    hosts: Mutex<BTreeMap<Arc<str>, Arc<Host>>>,
    links: Mutex<Links>,
    /// How much of what is there a read is given.
    reads: Mutex<Option<Stream>>,
}

impl Fabric {
    pub fn new(kernel: &Arc<Kernel>) -> Fabric {
        Fabric {
            kernel: kernel.clone(),
            hosts: Mutex::default(),
            links: Mutex::default(),
            reads: Mutex::default(),
        }
    }

    pub fn join(&self, host: &Arc<Host>) {
        lock(&self.hosts).insert(host.name.clone(), host.clone());
    }

    pub fn is_up(&self, machine: &str) -> bool {
        lock(&self.hosts).get(machine).is_none_or(|host| host.is_powered())
    }

    pub fn transit(&self, from: &Arc<str>, to: &Arc<str>, bytes: usize) -> Transit {
        let kernel = &self.kernel;
        let mut links = lock(&self.links);
        kernel.with_faults(|faults| links.transit(kernel.seed, faults, from, to, bytes, kernel.now()))
    }

    /// Whether a connect gets no answer this time, for one of the links' reasons.
    pub fn connect_hangs(&self, faults: &mut ActiveFaults, from: &Arc<str>, to: &Arc<str>, now: u64) -> bool {
        lock(&self.links).connect_hangs(self.kernel.seed, faults, from, to, now)
    }

    /// How many bytes a read of `most` is given: now and then some first part, so that whoever parses meets every
    /// split.
    pub fn portion(&self, most: usize) -> usize {
        let mut reads = lock(&self.reads);
        let stream = reads.get_or_insert_with(|| Stream::new(self.kernel.seed, "reads"));
        if most > 1 && stream.per_mille(SHORT_READS) {
            1 + stream.below(most as u64 - 1) as usize
        } else {
            most
        }
    }

    /// How long after a heal the sender tries again.
    pub fn retry(&self, from: &Arc<str>, to: &Arc<str>) -> u64 {
        lock(&self.links).retry(self.kernel.seed, from, to)
    }
}
