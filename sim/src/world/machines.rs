//! All machines of a kernel, the network between them, and how their processes ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::ending::Ending;
use super::host::Host;
use super::kernel::Kernel;
use super::lock;
use super::machine::Machine;
use super::network::Network;

pub struct Machines {
    kernel: Arc<Kernel>,
    network: Arc<Network>,
    all: Mutex<BTreeMap<String, Arc<Machine>>>,
    endings: Arc<Mutex<Vec<Ending>>>,
}

impl Machines {
    pub(super) fn new(kernel: &Arc<Kernel>) -> Arc<Machines> {
        Arc::new(Machines {
            kernel: kernel.clone(),
            network: Network::new(kernel),
            all: Mutex::default(),
            endings: Arc::default(),
        })
    }

    pub(super) fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    pub(super) fn network(&self) -> &Arc<Network> {
        &self.network
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Machine>> {
        lock(&self.all).get(name).cloned()
    }

    /// The machine of that name, made when it is new.
    pub(super) fn get_or_make(&self, name: &str) -> Arc<Machine> {
        if let Some(machine) = self.get(name) {
            return machine;
        }
        let host = Host::new(&self.kernel, name);
        let machine = Machine::new(host.clone(), &self.network, &self.endings);
        lock(&self.all).insert(name.to_owned(), machine.clone());
        self.network.join(&host);
        machine
    }

    /// In order of their names.
    pub(super) fn all(&self) -> Vec<Arc<Machine>> {
        lock(&self.all).values().cloned().collect()
    }

    /// How processes ended so far.
    pub(super) fn endings(&self) -> Vec<Ending> {
        lock(&self.endings).clone()
    }

    /// Drops whatever could hold the world alive in a circle.
    pub(super) fn dissolve(&self) {
        let machines = std::mem::take(&mut *lock(&self.all));
        for machine in machines.values() {
            machine.dissolve();
        }
        drop(machines);
        self.network.clear();
    }
}
