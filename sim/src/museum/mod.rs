//! The museum: historical defects, rebuilt as parts that take the place of ours inside the whole broker.

/// The exhibits by name; `--part` takes any of them.
pub const NAMES: [&str; 6] = [
    "fsync-without-deadline",
    "offset-reset",
    "ring-blocking-recv",
    "interval-only-commit",
    "idle-thrash",
    "blocking-call-in-async",
];
