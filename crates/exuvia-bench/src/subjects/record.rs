//! The records of the subjects that come with the harness: people, with a real change from version 1 to 2.

use serde::{Deserialize, Serialize};

use exuvia::{CastError, Origin, Version};

use super::super::random::Random;

const GIVEN: [&str; 8] = ["Ada", "Grace", "Edsger", "Barbara", "Donald", "Frances", "Niklaus", "Radia"];
const FAMILY: [&str; 8] = ["Lovelace", "Hopper", "Dijkstra", "Liskov", "Knuth", "Allen", "Wirth", "Perlman"];

/// A person, as version 1 has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PersonV1 {
    /// Given and family name, with a space between.
    pub name: String,
    /// Height in quarters of an inch.
    pub height_quarter_inches: u32,
    /// Anything; it fills the record up to its size.
    pub note: String,
}

/// A person, as version 2 has it: the name taken apart, the height in micrometres.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PersonV2 {
    /// Given name.
    pub given: String,
    /// Family name.
    pub family: String,
    /// Height in micrometres; a quarter of an inch has 6350.
    pub height_um: u64,
    /// Anything.
    pub note: String,
    /// Only version 2 has it.
    pub email: Option<String>,
}

/// What an encoded record of version 1 has beside the letters of its name and its note: lengths and a number.
const FRAME: usize = 5;

impl PersonV1 {
    /// The person under `key` after `revision` writes, of about `bytes` encoded bytes. Always the same for the same three.
    pub fn make(key: u64, revision: u32, bytes: usize) -> Self {
        let mut random = Random::new(key, u64::from(revision), 0);
        let mut pick = |names: &[&'static str]| {
            names.get(random.below(names.len() as u64) as usize).copied().unwrap_or("Ada")
        };
        let name = format!("{} {}", pick(&GIVEN), pick(&FAMILY));
        let letters = bytes.saturating_sub(FRAME + name.len()).max(1);
        let mut note = format!("{key} {revision} ");
        // Letters without a pattern, so that an engine that compresses has nothing to gain.
        while note.len() < letters {
            let mut bits = random.next_u64();
            for _ in 0..12 {
                note.push(char::from(b'a' + (bits % 26) as u8));
                bits /= 26;
            }
        }
        note.truncate(letters);
        PersonV1 { name, height_quarter_inches: 200 + random.below(120) as u32, note }
    }
}

impl PersonV2 {
    /// The same person at version 2.
    pub fn make(key: u64, revision: u32, bytes: usize) -> Self {
        PersonV2::from(PersonV1::make(key, revision, bytes))
    }
}

const UM: u64 = 6350;

impl From<PersonV1> for PersonV2 {
    fn from(old: PersonV1) -> Self {
        let (given, family) = old.name.split_once(' ').unwrap_or((&old.name, ""));
        PersonV2 {
            given: given.to_owned(),
            family: family.to_owned(),
            height_um: u64::from(old.height_quarter_inches) * UM,
            note: old.note,
            email: None,
        }
    }
}

impl Version for PersonV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for PersonV2 {
    const VERSION: u32 = 2;
    type Previous = PersonV1;

    fn upcast(old: PersonV1) -> Result<Self, CastError> {
        Ok(PersonV2::from(old))
    }

    fn downcast(&self, _last: Option<PersonV1>) -> Result<PersonV1, CastError> {
        let height =
            u32::try_from(self.height_um / UM).map_err(|_| CastError::new("a height out of range"))?;
        Ok(PersonV1 {
            name: format!("{} {}", self.given, self.family),
            height_quarter_inches: height,
            note: self.note.clone(),
        })
    }

    fn merge(old: PersonV1, last: PersonV2) -> Result<Option<Self>, CastError> {
        Ok(Some(PersonV2 { email: last.email, ..PersonV2::from(old) }))
    }
}

/// A person at either version, as the subjects hand it out.
#[derive(Debug, Clone, PartialEq)]
pub enum Person {
    /// At version 1.
    V1(PersonV1),
    /// At version 2.
    V2(PersonV2),
}

impl Person {
    /// The person under `key` after `revision` writes, of about `bytes` bytes, at version 1 or 2.
    pub fn make(key: u64, revision: u32, version: u32, bytes: usize) -> Self {
        match version {
            1 => Person::V1(PersonV1::make(key, revision, bytes)),
            _ => Person::V2(PersonV2::make(key, revision, bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_their_size_and_come_back_from_version_2() {
        for key in (0..10_000).step_by(37) {
            let old = PersonV1::make(key, 3, 150);
            let mut bytes = Vec::new();
            old.encode(&mut bytes).expect("encodes");
            assert!((148..=150).contains(&bytes.len()), "{} bytes", bytes.len());
            assert_eq!(PersonV2::make(key, 3, 150).downcast(None).expect("downcast"), old);
            assert_ne!(old, PersonV1::make(key, 4, 150));
            assert_ne!(old, PersonV1::make(key + 1, 3, 150));
        }
        assert!(PersonV1::make(7, 0, 0).note.len() == 1);
    }
}
