//! A keyed permutation of `0..n` with random access: a true global shuffle in no memory.
//!
//! A balanced Feistel network over the smallest even number of bits that holds `n`, walked until the value falls back
//! into the range (Black and Rogaway 2002); at most four times more values than `n`, so four walks on average.

use crate::rng::Rng;

/// Rounds; 4 are provably enough for large domains, tiny ones want more.
const ROUNDS: usize = 10;

/// A permutation of `0..n`.
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..n` that `rng` keys.
    pub fn new(mut rng: Rng, n: u64) -> Self {
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Permutation { n, half_bits: bits.div_ceil(2).max(1), keys: std::array::from_fn(|_| rng.bits()) }
    }

    /// Image of `i`, which must be below `n`.
    pub fn at(&self, i: u64) -> u64 {
        debug_assert!(i < self.n, "position {i} of a permutation of {}", self.n);
        if self.n < 2 {
            return 0;
        }
        let mut x = i;
        loop {
            x = self.rounds(x);
            if x < self.n {
                return x;
            }
        }
    }

    fn rounds(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (scramble(right ^ key) >> (64 - self.half_bits)));
        }
        (left << self.half_bits) | right
    }
}

/// Bijective 64-bit mixer (the finaliser of SplitMix64, Steele et al. 2014); its top bits depend on all input bits.
fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Draw, Stream};
    use proptest::prelude::*;

    fn perm(seed: u64, n: u64) -> Permutation {
        Permutation::new(Stream::new(seed, "perm").at(Draw::Permutation, 0, 0), n)
    }

    proptest! {
        #[test]
        fn every_value_is_taken_once(n in 1u64..700, seed: u64) {
            let p = perm(seed, n);
            let mut seen: Vec<u64> = (0..n).map(|i| p.at(i)).collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..n));
        }

        #[test]
        fn huge_ranges_stay_in_range(n in 1u64..(1 << 40), i: u64, seed: u64) {
            prop_assert!(perm(seed, n).at(i % n) < n);
        }
    }

    #[test]
    fn tiny_permutations_are_near_uniform() {
        // 24 orders of 4 in 24,000 keys: 1,000 each with sigma 31; 5 sigma per cell, fixed seeds.
        let mut seen = std::collections::BTreeMap::new();
        for seed in 0..24_000 {
            let p = perm(seed, 4);
            *seen.entry([p.at(0), p.at(1), p.at(2), p.at(3)]).or_insert(0u32) += 1;
        }
        assert_eq!(seen.len(), 24);
        assert!(seen.values().all(|c| (845..1155).contains(c)), "{seen:?}");
    }
}
