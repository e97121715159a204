//! Randomness that reaches for the kernel directly: `syscall(SYS_getrandom)`.
//!
//! Crates on rand 0.8 (raft's election time-outs) draw their seeds there, past every hook that madsim has. In
//! any binary that runs worlds, `syscall` is this one: on a world's thread it answers from the world's
//! own stream, elsewhere and for any other number it passes the call on.

use std::cell::RefCell;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_long, c_void};

use crate::streams::Stream;

thread_local! {
    static STREAM: RefCell<Option<Stream>> = const { RefCell::new(None) };
}

/// From now on this thread's kernel randomness is the world's.
pub(super) fn seed_this_thread(seed: u64) {
    STREAM.with_borrow_mut(|stream| *stream = Some(Stream::new(seed, "getrandom")));
}

type Syscall = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;

fn next_syscall() -> Syscall {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    let mut found = NEXT.load(Ordering::Acquire);
    if found.is_null() {
        // SAFETY: the name is a valid C string; RTLD_NEXT finds libc's own definition behind this one.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) };
        if found.is_null() {
            std::process::abort();
        }
        NEXT.store(found, Ordering::Release);
    }
    // SAFETY: libc's `syscall` is `long syscall(long, ...)`; on the 64-bit ABIs of Linux up to six variadic
    // longs are passed exactly like named ones.
    unsafe { std::mem::transmute::<*mut c_void, Syscall>(found) }
}

/// Stands in front of libc's.
///
/// # Safety
///
/// As for `syscall(2)`: the arguments must be what the call of that number takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    if number == libc::SYS_getrandom {
        let answered = STREAM.try_with(|stream| match stream.try_borrow_mut().as_deref_mut() {
            Ok(Some(stream)) => {
                // SAFETY: the caller of getrandom hands over a buffer (`a`) of `b` writable bytes.
                let buffer = unsafe { std::slice::from_raw_parts_mut(a as *mut u8, b as usize) };
                stream.fill(buffer);
                true
            }
            _ => false,
        });
        if answered == Ok(true) {
            return b;
        }
    }
    // SAFETY: the caller's own arguments, passed on unchanged.
    unsafe { next_syscall()(number, a, b, c, d, e, f) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rand 0.8 does to seed itself.
    fn draw() -> u64 {
        let mut bytes = [0u8; 8];
        // SAFETY: the buffer is eight bytes long.
        let drawn = unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), 8usize, 0) };
        assert_eq!(drawn, 8);
        u64::from_ne_bytes(bytes)
    }

    #[allow(clippy::disallowed_methods, reason = "the hook is per thread")]
    fn on_a_seeded_thread(seed: u64) -> u64 {
        std::thread::spawn(move || {
            seed_this_thread(seed);
            draw()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn the_kernels_randomness_is_the_seeds_on_a_worlds_thread() {
        assert_eq!(on_a_seeded_thread(1), on_a_seeded_thread(1));
        assert_ne!(on_a_seeded_thread(1), on_a_seeded_thread(2));
    }

    #[test]
    fn elsewhere_it_stays_the_kernels() {
        assert_ne!(draw(), draw());
    }
}
