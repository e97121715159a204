//! Giving memory back to the system after a load. The allocator keeps what was freed for the next time, page upon page,
//! since something small and alive lies above it; only being asked to (`malloc_trim`) makes it let go.
//!
//! A thread of its own looks every [`PERIOD`] at how much more is resident than is in use, for as long as the runtime's
//! threads tell it of activity; with the last activity its looking ends, and a process that idles does not wake up. On
//! systems without this allocator nothing is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(2);
/// Kept for the next request. Less is not worth the page faults.
const KEPT_BYTES: usize = 32 << 20;
/// Looks in a row that have to find too much: between two bursts of a load it is about to be used again.
const LOOKS: u32 = 2;

/// Told of activity by the threads of the runtime, see [`tokio::runtime::Builder::on_thread_park`].
#[derive(Clone)]
pub struct MemoryReturn(Option<Arc<Shared>>);

struct Shared {
    /// Since the thread looked last.
    active: AtomicBool,
    thread: Thread,
}

impl MemoryReturn {
    /// Starts the thread that gives memory back, if the allocator's usage can be read here.
    pub fn start() -> MemoryReturn {
        if usage().is_none() {
            return MemoryReturn(None);
        }
        let (give, take) = std::sync::mpsc::sync_channel::<Arc<Shared>>(1);
        let looking = move || {
            if let Ok(shared) = take.recv() {
                drop(take);
                look_after(&shared);
            }
        };
        match std::thread::Builder::new().name("memory".into()).spawn(looking) {
            Ok(thread) => {
                let shared = Shared { active: AtomicBool::new(true), thread: thread.thread().clone() };
                let shared = Arc::new(shared);
                drop(give.send(shared.clone()));
                MemoryReturn(Some(shared))
            }
            Err(error) => {
                tracing::error!("no thread that gives memory back: {error}");
                MemoryReturn(None)
            }
        }
    }

    /// Cheap: a load, unless it is the first activity since the thread looked.
    pub fn activity(&self) {
        if let Some(shared) = &self.0
            && !shared.active.load(Ordering::Relaxed)
            && !shared.active.swap(true, Ordering::AcqRel)
        {
            shared.thread.unpark();
        }
    }
}

fn look_after(shared: &Shared) {
    let mut excess = Excess::default();
    loop {
        let active = shared.active.swap(false, Ordering::AcqRel);
        let Some((resident, in_use)) = usage() else { return };
        if excess.handle_look(resident, in_use) {
            trim();
        } else if !active && !excess.looks_again() {
            while !shared.active.load(Ordering::Acquire) {
                std::thread::park();
            }
        }
        std::thread::sleep(PERIOD);
    }
}

#[derive(Debug, Default)]
struct Excess {
    looks: u32,
    /// What giving back left the last time: code, stacks, and pages that are half in use.
    left: Option<usize>,
    given_back: bool,
}

impl Excess {
    /// Whether to give back now. What cannot be given back, as the last try showed, is not asked for again.
    fn handle_look(&mut self, resident: usize, in_use: usize) -> bool {
        let unused = resident.saturating_sub(in_use);
        if std::mem::take(&mut self.given_back) {
            self.left = Some(unused);
        }
        if unused <= self.left.unwrap_or(0) + KEPT_BYTES {
            self.left = self.left.map(|left| left.min(unused));
            self.looks = 0;
            return false;
        }
        self.looks += 1;
        if self.looks < LOOKS {
            return false;
        }
        self.looks = 0;
        self.given_back = true;
        true
    }

    fn looks_again(&self) -> bool {
        self.looks > 0 || self.given_back
    }
}

/// Bytes resident, and bytes that the allocator has given out.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn usage() -> Option<(usize, usize)> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: takes nothing, and returns a struct of numbers.
    let (info, page) = unsafe { (libc::mallinfo2(), libc::sysconf(libc::_SC_PAGESIZE)) };
    Some((pages * usize::try_from(page).ok()?, info.uordblks + info.hblkhd))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn usage() -> Option<(usize, usize)> {
    None
}

fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes a number; it only gives back pages that nothing alive lies on.
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn looks(excess: &mut Excess, looks: &[(usize, usize)]) -> Vec<bool> {
        looks.iter().map(|(resident, used)| excess.handle_look(resident * MIB, used * MIB)).collect()
    }

    #[test]
    fn memory_is_given_back_when_it_stays_unused_and_not_between_two_bursts() {
        let mut excess = Excess::default();
        assert_eq!(looks(&mut excess, &[(700, 20), (700, 690), (700, 20)]), [false; 3]);
        assert!(excess.looks_again(), "whoever goes to sleep now keeps it for ever");
        assert_eq!(looks(&mut excess, &[(700, 20), (30, 20)]), [true, false]);
        assert!(!excess.looks_again());
    }

    #[test]
    fn what_cannot_be_given_back_is_not_asked_for_again_and_again() {
        let mut excess = Excess::default();
        assert_eq!(looks(&mut excess, &[(200, 20), (200, 20)]), [false, true]);
        assert_eq!(looks(&mut excess, &[(150, 20), (150, 20), (155, 20), (150, 20)]), [false; 4]);
        assert_eq!(
            looks(&mut excess, &[(300, 20), (300, 20)]),
            [false, true],
            "a new load is another matter"
        );
    }
}
