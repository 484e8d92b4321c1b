//! Which keys operations go to. Pure: random numbers in, keys out.

use serde::{Deserialize, Serialize};

use super::random::Random;

/// The skew that YCSB uses.
const THETA: f64 = 0.99;

/// YCSB draws its scrambled Zipfian ranks from so many items, and then hashes them down; this is their zeta(n, 0.99).
const SCRAMBLED_ITEMS: u64 = 10_000_000_000;
const SCRAMBLED_ZETA: f64 = 26.469_028_201_783_02;

/// How keys are chosen among those that were inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// All alike.
    Uniform,
    /// Few keys get most operations, and are spread over all: YCSB's scrambled Zipfian, with skew 0.99.
    Zipfian,
    /// The latest keys get most operations: YCSB's "latest", with skew 0.99.
    Latest,
}

/// Draws ranks so that rank *i* comes up in proportion to 1 / (i + 1)^θ.
///
/// Gray, Sundaresan, Englert, Baclawski, Weinberger, *Quickly generating billion-record synthetic databases*, SIGMOD
/// 1994, as YCSB (Cooper and others, SoCC 2010) uses it.
#[derive(Debug, Clone)]
struct Zipf {
    items: u64,
    zeta: f64,
}

impl Zipf {
    /// Costs one power for each item.
    fn new(items: u64) -> Self {
        let mut zipf = Self { items: 0, zeta: 0.0 };
        zipf.grow(items);
        zipf
    }

    fn grow(&mut self, items: u64) {
        for item in self.items..items {
            self.zeta += 1.0 / ((item + 1) as f64).powf(THETA);
        }
        self.items = self.items.max(items);
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let (n, alpha) = (self.items.max(1) as f64, 1.0 / (1.0 - THETA));
        let second = 0.5f64.powf(THETA);
        let u = random.unit();
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + second {
            return 1;
        }
        let eta = (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - (1.0 + second) / self.zeta);
        let rank = (n * (eta * u - eta + 1.0).powf(alpha)) as u64;
        rank.min(self.items.saturating_sub(1))
    }
}

/// Chooses keys for one thread.
#[derive(Debug, Clone)]
pub struct Chooser {
    keys: Keys,
    zipf: Zipf,
}

impl Chooser {
    /// A chooser among keys 0 to `count` at first. For "latest" it costs one power for each key.
    pub fn new(keys: Keys, count: u64) -> Self {
        let zipf = match keys {
            Keys::Uniform => Zipf { items: 0, zeta: 0.0 },
            Keys::Zipfian => Zipf { items: SCRAMBLED_ITEMS, zeta: SCRAMBLED_ZETA },
            Keys::Latest => Zipf::new(count),
        };
        Self { keys, zipf }
    }

    /// A key below `count`, which may have grown since the last call.
    pub fn draw(&mut self, random: &mut Random, count: u64) -> u64 {
        match self.keys {
            Keys::Uniform => random.below(count),
            Keys::Zipfian => fnv1a(self.zipf.draw(random)) % count.max(1),
            Keys::Latest => {
                self.zipf.grow(count);
                count.saturating_sub(1).saturating_sub(self.zipf.draw(random))
            }
        }
    }
}

/// FNV-1a of a number's eight bytes, lowest first: what YCSB scrambles with.
fn fnv1a(number: u64) -> u64 {
    number
        .to_le_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(keys: Keys, count: u64, draws: u64) -> Vec<f64> {
        let (mut chooser, mut random) = (Chooser::new(keys, count), Random::new(3, 0, 0));
        let mut seen = vec![0u64; count as usize];
        for _ in 0..draws {
            seen[chooser.draw(&mut random, count) as usize] += 1;
        }
        seen.iter().map(|n| *n as f64 / draws as f64).collect()
    }

    #[test]
    fn uniform_keys_are_all_alike() {
        for share in shares(Keys::Uniform, 100, 1_000_000) {
            assert!((share - 0.01).abs() < 0.001, "{share}");
        }
    }

    #[test]
    fn latest_follows_the_law_of_zipf_from_the_newest_key_on() {
        let count = 1000;
        let shares = shares(Keys::Latest, count, 1_000_000);
        let zeta: f64 = (1..=count).map(|i| 1.0 / (i as f64).powf(THETA)).sum();
        // The method is exact for the first two ranks, and close for the others (Gray and others, section 3).
        for (rank, within) in [(0u64, 0.02), (1, 0.02), (9, 0.15), (99, 0.15)] {
            let expected = 1.0 / ((rank + 1) as f64).powf(THETA) / zeta;
            let found = shares[(count - 1 - rank) as usize];
            assert!((found / expected - 1.0).abs() < within, "rank {rank}: {found} for {expected}");
        }
    }

    #[test]
    fn a_chooser_of_the_latest_follows_inserts() {
        let (mut chooser, mut random) = (Chooser::new(Keys::Latest, 10), Random::new(1, 0, 0));
        let newest = (0..1000).filter(|_| chooser.draw(&mut random, 1000) >= 990).count();
        assert!(newest > 300, "{newest} of 1000 draws among the ten newest of 1000");
    }

    #[test]
    fn zipfian_keys_are_skewed_and_scattered() {
        let mut shares: Vec<(usize, f64)> =
            shares(Keys::Zipfian, 10_000, 500_000).into_iter().enumerate().collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        // Rank 0 of ten thousand million items has the share 1 / zeta.
        assert!((shares[0].1 - 1.0 / SCRAMBLED_ZETA).abs() < 0.002, "{}", shares[0].1);
        let top: f64 = shares[..100].iter().map(|(_, share)| share).sum();
        assert!((0.15..0.6).contains(&top), "the 100 hottest of 10 000 keys have {top}");
        let low = shares[..100].iter().filter(|(key, _)| *key < 5000).count();
        assert!((25..75).contains(&low), "{low} of the 100 hottest keys are in the lower half");
    }
}
