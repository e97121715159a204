//! The few system calls that std does not offer. All `unsafe` of the process and thread kind is here.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::disk::Space;

/// Raises the limit of open descriptors to the hard limit; tells what it is now.
///
/// # Errors
/// Of the system, which did not tell or set the limit.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the kernel to fill.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit that the kernel only reads.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    }
    Ok(limit.rlim_cur)
}

/// Ends the process at once: no destructors, no waiting for threads that hang in the kernel.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(status) }
}

/// Ends the process after that, whatever it does then.
///
/// # Errors
/// There is no thread to be had.
pub fn exit_after(time: Duration, status: i32) -> io::Result<()> {
    let ends = move || {
        std::thread::sleep(time);
        exit_now(status)
    };
    std::thread::Builder::new().spawn(ends).map(drop)
}

/// Takes an exclusive lock on an open file, without waiting; it lasts until the file is closed.
pub(super) fn take(file: &std::fs::File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })
}

/// Of the volume that `path` is on.
pub(super) fn space(path: &Path) -> io::Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut told = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero byte, and the kernel fills `told`.
    check(unsafe { libc::statvfs(path.as_ptr(), told.as_mut_ptr()) })?;
    // SAFETY: it was filled, for the call succeeded.
    let told = unsafe { told.assume_init() };
    let bytes = |blocks| told.f_frsize.saturating_mul(blocks);
    Ok(Space { total: bytes(told.f_blocks), usable: bytes(told.f_bavail) })
}

/// Has the kernel ask a silent peer whether it is still there: one that is gone without a word is noticed after
/// two minutes.
pub(super) fn keep_alive(socket: RawFd) -> io::Result<()> {
    let options = [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 60),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 10),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 6),
    ];
    for (level, name, value) in options {
        let value: libc::c_int = value;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel reads `size` bytes of `value`; the caller keeps the descriptor open.
        check(unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), size) })?;
    }
    Ok(())
}

/// Ends both directions of a socket, and a listener's listening, whoever waits on it.
pub(super) fn shut_down(socket: RawFd) {
    // SAFETY: takes no pointers; the caller keeps the descriptor open meanwhile. That it is a socket no
    // longer connected is no concern of ours.
    unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
}

/// Bytes that came on a socket and were not read.
pub(super) fn unread(socket: RawFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel fills `bytes`; the caller keeps the descriptor open meanwhile.
    let told = unsafe { libc::ioctl(socket, libc::FIONREAD, &raw mut bytes) };
    if told == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Whether this process may use io_uring; if not, why, and what to do about it.
pub(super) fn io_uring_refused() -> Option<String> {
    // Larger than `struct io_uring_params` (120 bytes), aligned for it, and zero as the kernel demands.
    let mut parameters = [0u64; 32];
    // SAFETY: the kernel fills at most sizeof(struct io_uring_params) bytes.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()) };
    if ring >= 0 {
        // SAFETY: the descriptor was just opened and nobody else has it.
        unsafe { libc::close(ring as RawFd) };
        return None;
    }
    let error = io::Error::last_os_error();
    let advice = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => match disabled_setting().as_deref() {
            Some("2") => {
                "forbidden by /proc/sys/kernel/io_uring_disabled = 2: `sysctl kernel.io_uring_disabled=0` allows it"
            }
            Some("1") => {
                "/proc/sys/kernel/io_uring_disabled = 1 allows it to members of kernel.io_uring_group only"
            }
            _ => {
                "forbidden by a seccomp filter, as containers have by default: allow io_uring_setup, io_uring_enter and io_uring_register"
            }
        },
        Some(libc::ENOSYS) => {
            "unknown to this kernel, or hidden by a seccomp filter (containers: allow io_uring_setup, io_uring_enter and io_uring_register)"
        }
        Some(libc::ENOMEM) => "no memory may be locked for it: raise `ulimit -l`",
        Some(libc::EMFILE | libc::ENFILE) => "no descriptor is free: raise `ulimit -n`",
        _ => "see dmesg, and /proc/sys/kernel/io_uring_disabled",
    };
    Some(format!("{advice} ({error})"))
}

fn disabled_setting() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    Some(text.trim().to_owned())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
