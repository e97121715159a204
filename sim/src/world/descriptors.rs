//! Descriptors of a process: how many files and sockets it has open, and how many it may have.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a process has open before it opens anything: standard streams, runtime, signals, listeners.
const TAKEN_BY_THE_PROCESS: u64 = 12;

pub struct Descriptors {
    limit: u64,
    open: AtomicU64,
    sockets: AtomicU64,
    sockets_peak: AtomicU64,
}

impl Descriptors {
    pub fn new(limit: u64) -> Arc<Descriptors> {
        Arc::new(Descriptors {
            limit,
            open: AtomicU64::new(TAKEN_BY_THE_PROCESS),
            sockets: AtomicU64::new(0),
            sockets_peak: AtomicU64::new(0),
        })
    }

    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub fn sockets(&self) -> u64 {
        self.sockets.load(Ordering::Relaxed)
    }

    pub fn sockets_peak(&self) -> u64 {
        self.sockets_peak.load(Ordering::Relaxed)
    }

    pub fn are_used_up(&self) -> bool {
        self.open() >= self.limit
    }

    /// EMFILE when the limit is reached.
    pub fn file(self: &Arc<Descriptors>) -> io::Result<Descriptor> {
        self.take(false)
    }

    /// EMFILE when the limit is reached.
    pub fn socket(self: &Arc<Descriptors>) -> io::Result<Descriptor> {
        self.take(true)
    }

    fn take(self: &Arc<Descriptors>, socket: bool) -> io::Result<Descriptor> {
        if self.are_used_up() {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        if socket {
            let sockets = self.sockets.fetch_add(1, Ordering::Relaxed) + 1;
            self.sockets_peak.fetch_max(sockets, Ordering::Relaxed);
        }
        Ok(Descriptor { of: self.clone(), socket })
    }
}

/// One open descriptor; dropping it closes it.
pub struct Descriptor {
    of: Arc<Descriptors>,
    socket: bool,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.of.open.fetch_sub(1, Ordering::Relaxed);
        if self.socket {
            self.of.sockets.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_for_files_and_sockets_together() {
        let descriptors = Descriptors::new(TAKEN_BY_THE_PROCESS + 2);
        let file = descriptors.file().unwrap();
        let socket = descriptors.socket().unwrap();
        for refused in [descriptors.file(), descriptors.socket()] {
            assert_eq!(refused.err().and_then(|error| error.raw_os_error()), Some(libc::EMFILE));
        }
        drop(file);
        let another = descriptors.socket().unwrap();
        drop((socket, another));
        assert_eq!((descriptors.sockets(), descriptors.sockets_peak()), (0, 2));
        assert_eq!(descriptors.open(), TAKEN_BY_THE_PROCESS);
    }
}
