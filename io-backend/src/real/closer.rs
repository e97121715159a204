//! Closing files on a thread of its own: the last descriptor of a removed file frees its blocks, which waits for
//! the device, and the thread that lets go of a file is mostly one of the runtime's.
//!
//! One thread, so that a close that hangs holds up other closes only. What waits here is bounded by the process's
//! descriptors. Without the thread (it could not be started, or the process ends) a file is closed where it is dropped.

use std::fs::File;
use std::panic::Location;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use crate::registry::{Registry, WaitKind};
use crate::time::Moment;

/// The monotonic clock of a node that began at `origin`.
pub(super) fn elapsed(origin: Instant) -> Moment {
    Moment(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

pub(super) struct Closer {
    files: Option<Sender<Closing>>,
}

struct Closing {
    file: File,
    path: Arc<str>,
    site: &'static Location<'static>,
}

impl Closer {
    /// Ends with its last user.
    pub(super) fn start(registry: Arc<Registry>, origin: Instant) -> Arc<Closer> {
        let (files, received) = mpsc::channel();
        let thread = std::thread::Builder::new().name("disk-close".into());
        let started = thread.spawn(move || close_all(&received, &registry, origin));
        if let Err(error) = &started {
            tracing::error!("no thread to close files on: {error}");
        }
        Arc::new(Closer { files: started.is_ok().then_some(files) })
    }

    /// `path` is what people are told should it hang.
    #[track_caller]
    pub(super) fn close(&self, file: File, path: Arc<str>) {
        let closing = Closing { file, path, site: Location::caller() };
        match &self.files {
            // What a thread that is gone leaves is dropped here, which closes it.
            Some(files) => drop(files.send(closing)),
            None => drop(closing),
        }
    }
}

fn close_all(files: &Receiver<Closing>, registry: &Arc<Registry>, origin: Instant) {
    while let Ok(Closing { file, path, site }) = files.recv() {
        let closing = registry.operation_at(elapsed(origin), WaitKind::DiskName, "close", path, site);
        drop(file);
        closing.end(elapsed(origin));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::time::Duration;

    use super::*;

    /// A descriptor whose close waits until its peer has read everything, for ten minutes; and the peer.
    fn slow_to_close() -> (File, TcpStream, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(more) = ours.write(&[7; 65_536]) {
            sent += more;
        }
        let linger = libc::linger { l_onoff: 1, l_linger: 600 };
        // SAFETY: the descriptor is open, and the option's value is a `linger` of the size that is given.
        let set = unsafe {
            libc::setsockopt(
                ours.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            )
        };
        assert_eq!(set, 0);
        ours.set_nonblocking(false).unwrap();
        (OwnedFd::from(ours).into(), peer, sent)
    }

    const HANGS_FOR: Duration = Duration::from_secs(30);

    #[test]
    fn a_close_that_hangs_holds_up_nobody_and_is_seen() {
        let registry = Registry::new();
        let closer = Closer::start(registry.clone(), Instant::now());
        let (file, mut peer, sent) = slow_to_close();
        // Inline closing would wait for the peer, which reads only below: this lets it fail instead.
        let mut late = peer.try_clone().unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(HANGS_FOR);
            std::io::copy(&mut late, &mut std::io::sink())
        });
        let began = Instant::now();
        closer.close(file, "the file".into());
        let seen = || registry.oldest_operation(|entry| entry.what == "close");
        while seen().is_none() {
            assert!(began.elapsed() < HANGS_FOR, "it was closed by whoever let go of it");
            std::thread::yield_now();
        }
        assert_eq!(seen().unwrap().target.as_deref(), Some("the file"));
        let mut arrived = Vec::new();
        peer.read_to_end(&mut arrived).unwrap();
        assert_eq!(arrived.len(), sent);
        while seen().is_some() {
            std::thread::yield_now();
        }
    }
}
