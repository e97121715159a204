//! Random streams, each with a name: plan, workload, every link, every disk, every process.
//!
//! A stream depends on the seed and its own name alone, so that drawing more from one (another part, a
//! longer run, one more connection) changes nothing in the others.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One named stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    pub fn new(seed: u64, name: &str) -> Stream {
        let mut key = [0u8; 32];
        for (part, chunk) in key.chunks_exact_mut(8).enumerate() {
            let salted = seed.wrapping_add((part as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            chunk.copy_from_slice(
                &twox_hash::XxHash3_64::oneshot_with_seed(salted, name.as_bytes()).to_le_bytes(),
            );
        }
        Stream(ChaCha8Rng::from_seed(key))
    }

    pub fn u64(&mut self) -> u64 {
        self.0.random()
    }

    /// A number in `0..below`; zero when `below` is.
    pub fn below(&mut self, below: u64) -> u64 {
        if below == 0 { 0 } else { self.0.random_range(0..below) }
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high.max(low))
    }

    /// True in `share` of a thousand draws.
    pub fn per_mille(&mut self, share: u32) -> bool {
        self.below(1000) < u64::from(share)
    }

    pub fn coin(&mut self) -> bool {
        self.0.random()
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    /// `usual` with jitter of a quarter and, now and then, a tail of several times as much.
    pub fn latency(&mut self, usual: u64) -> u64 {
        let jittered = usual - usual / 8 + self.below(usual / 4 + 1);
        match self.below(1000) {
            0 => jittered * 8,
            1..10 => jittered * 3,
            _ => jittered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_its_seed_and_its_name() {
        let draw = |seed, name| Stream::new(seed, name).u64();
        assert_eq!(draw(1, "plan"), draw(1, "plan"));
        assert_ne!(draw(1, "plan"), draw(2, "plan"));
        assert_ne!(draw(1, "plan"), draw(1, "workload"));
    }

    #[test]
    fn latency_stays_near_the_usual_with_a_rare_tail() {
        let mut stream = Stream::new(7, "disk");
        let drawn: Vec<u64> = (0..10_000).map(|_| stream.latency(1000)).collect();
        let near = drawn.iter().filter(|l| (875..=1126).contains(*l)).count();
        assert!((9_800..10_000).contains(&near), "{near}");
    }
}
