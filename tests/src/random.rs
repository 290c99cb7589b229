//! A small generator for sampling, so that a seed repeats a run.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub struct Random(u64);

impl Random {
    /// Starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `take` of the numbers below `all`, in order.
    pub fn sample(&mut self, all: usize, take: usize) -> Vec<usize> {
        let mut left: Vec<usize> = (0..all).collect();
        let mut taken = Vec::new();
        while taken.len() < take && !left.is_empty() {
            let len = u64::try_from(left.len()).unwrap_or(1);
            let index = usize::try_from(self.next_u64() % len).unwrap_or(0);
            taken.push(left.swap_remove(index));
        }
        taken.sort_unstable();
        taken
    }
}

/// The run's seed: `NANOVISOR_SEED`, else of the clock.
#[must_use]
pub fn seed() -> u64 {
    if let Some(seed) = std::env::var("NANOVISOR_SEED").ok().and_then(|s| s.parse().ok()) {
        return seed;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| u64::from(d.subsec_nanos()) ^ d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_distinct_and_repeat() {
        let one = Random::new(7).sample(100, 10);
        assert_eq!(one, Random::new(7).sample(100, 10));
        assert_eq!(one.len(), 10);
        assert!(one.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(Random::new(7).sample(3, 10), [0, 1, 2]);
    }
}
