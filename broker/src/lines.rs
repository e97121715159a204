//! Lines of the log that anybody outside can cause: a flood of requests must not become a flood of lines.

use std::sync::atomic::{AtomicU64, Ordering};

/// So many of a kind are written as they come. Later ones are when their number is a power of two.
const AT_FIRST: u64 = 100;

/// How often something of one kind has happened.
#[derive(Default)]
pub struct Lines(AtomicU64);

impl Lines {
    /// It happened once more: how often by now, if that is to be written.
    pub fn next(&self) -> Option<u64> {
        let times = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        (times <= AT_FIRST || times.is_power_of_two()).then_some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_more() {
        let lines = Lines::default();
        let written: Vec<u64> = (0..100_000).filter_map(|_| lines.next()).collect();
        assert_eq!(written[..100], (1..=100).collect::<Vec<_>>());
        assert_eq!(written[100..], [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]);
    }
}
