//! What operations are made of: the shares of each kind.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::random::Random;

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Operation {
    /// Reads a record.
    Read,
    /// Writes a record that is there.
    Update,
    /// Writes a record under a new key.
    Insert,
    /// Removes a record.
    Remove,
    /// Reads some records in key order.
    Scan,
    /// Reads a record, then writes it.
    Modify,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 6] = [
        Operation::Read,
        Operation::Update,
        Operation::Insert,
        Operation::Remove,
        Operation::Scan,
        Operation::Modify,
    ];

    /// Its name, as it is in mixes and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Update => "update",
            Operation::Insert => "insert",
            Operation::Remove => "remove",
            Operation::Scan => "scan",
            Operation::Modify => "modify",
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The shares of the kinds of operations, and how keys are chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mix {
    /// Its name in reports.
    pub name: String,
    /// Shares, in any unit: they count in proportion to their sum.
    pub shares: Vec<(Operation, u32)>,
    /// How keys are chosen.
    pub keys: Keys,
    /// The most records of a scan; each asks for 1 to so many.
    pub scan_records_max: u64,
}

/// YCSB's scans ask for 1 to 100 records.
const YCSB_SCAN_RECORDS_MAX: u64 = 100;

impl Mix {
    /// What the harness uses unless told otherwise: 70% reads, 25% updates, 3% removals, 2% short scans, keys uniform.
    pub fn mixed() -> Self {
        let shares = vec![
            (Operation::Read, 70),
            (Operation::Update, 25),
            (Operation::Remove, 3),
            (Operation::Scan, 2),
        ];
        Self { name: "mixed".to_owned(), shares, keys: Keys::Uniform, scan_records_max: 31 }
    }

    /// One of YCSB's core workloads, "a" to "f" (Cooper and others, *Benchmarking cloud serving systems with YCSB*,
    /// 2010); `None` for any other letter.
    pub fn ycsb(letter: char) -> Option<Self> {
        use Operation::{Insert, Modify, Read, Scan, Update};
        let (shares, keys) = match letter.to_ascii_lowercase() {
            'a' => (vec![(Read, 50), (Update, 50)], Keys::Zipfian),
            'b' => (vec![(Read, 95), (Update, 5)], Keys::Zipfian),
            'c' => (vec![(Read, 100)], Keys::Zipfian),
            'd' => (vec![(Read, 95), (Insert, 5)], Keys::Latest),
            'e' => (vec![(Scan, 95), (Insert, 5)], Keys::Zipfian),
            'f' => (vec![(Read, 50), (Modify, 50)], Keys::Zipfian),
            _ => return None,
        };
        let name = format!("ycsb-{}", letter.to_ascii_lowercase());
        Some(Self { name, shares, keys, scan_records_max: YCSB_SCAN_RECORDS_MAX })
    }

    /// The same with keys chosen in another way.
    pub fn with_keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    /// Draws the kind of the next operation; a read if there are no shares.
    pub fn draw(&self, random: &mut Random) -> Operation {
        let total: u64 = self.shares.iter().map(|(_, share)| u64::from(*share)).sum();
        let mut drawn = random.below(total);
        for (operation, share) in &self.shares {
            match drawn.checked_sub(u64::from(*share)) {
                Some(rest) => drawn = rest,
                None => return *operation,
            }
        }
        Operation::Read
    }
}

/// "mixed", "a" to "f" (with or without "ycsb-" before it), or shares such as "read=90,update=9,scan=1".
impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "mixed" {
            return Ok(Mix::mixed());
        }
        let letter = text.strip_prefix("ycsb-").unwrap_or(text);
        if let (Some(first), None) = (letter.chars().next(), letter.chars().nth(1)) {
            return Mix::ycsb(first).ok_or_else(|| format!("YCSB has the mixes a to f, and no {first:?}"));
        }
        let mut shares = Vec::new();
        for part in text.split(',') {
            let parsed = part.split_once('=').and_then(|(name, share)| {
                let operation = Operation::ALL.into_iter().find(|op| op.name() == name.trim())?;
                Some((operation, share.trim().parse().ok()?))
            });
            let names = Operation::ALL.map(Operation::name).join(", ");
            shares.push(parsed.ok_or_else(|| {
                format!(
                    "{part:?} is no share; give mixed, a to f, or shares like read=90,update=10 of {names}"
                )
            })?);
        }
        if shares.iter().all(|(_, share)| *share == 0) {
            return Err("all shares are zero; give at least one that is not".to_owned());
        }
        Ok(Self { name: text.to_owned(), shares, ..Mix::mixed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_up_by_their_shares() {
        let (mix, mut random) = (Mix::mixed(), Random::new(1, 2, 3));
        let drawn: Vec<Operation> = (0..100_000).map(|_| mix.draw(&mut random)).collect();
        for (operation, share) in &mix.shares {
            let found = drawn.iter().filter(|drawn| *drawn == operation).count() as f64 / 1000.0;
            assert!((found - f64::from(*share)).abs() < 0.5, "{operation}: {found}");
        }
    }

    #[test]
    fn mixes_are_named_or_spelled_out() {
        assert_eq!("mixed".parse::<Mix>(), Ok(Mix::mixed()));
        assert_eq!("ycsb-d".parse::<Mix>().map(|mix| mix.keys), Ok(Keys::Latest));
        assert_eq!("A".parse::<Mix>().map(|mix| mix.shares.len()), Ok(2));
        let own = "read=90, update=9,scan=1".parse::<Mix>().expect("parses");
        assert_eq!(own.shares, [(Operation::Read, 90), (Operation::Update, 9), (Operation::Scan, 1)]);
        for bad in ["g", "", "read", "read=x", "fly=1", "read=0"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}
