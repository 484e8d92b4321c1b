//! The stored formats, built by hand as docs/format.md describes them. Shares no code with the crate.
#![allow(dead_code, reason = "a kit: not every test needs all of it")]

use exuvia::engine::{Engine, MemoryEngine, Page};

/// A value as bincode writes it.
#[derive(Default, Clone)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn flag(self, flag: bool) -> Self {
        self.raw(&[u8::from(flag)])
    }

    /// An unsigned integer of two bytes or more.
    pub fn number(self, number: u64) -> Self {
        match number {
            0..=250 => self.raw(&[number as u8]),
            251..=0xffff => self.raw(&[251]).raw(&(number as u16).to_le_bytes()),
            0x1_0000..=0xffff_ffff => self.raw(&[252]).raw(&(number as u32).to_le_bytes()),
            _ => self.raw(&[253]).raw(&number.to_le_bytes()),
        }
    }

    pub fn text(self, text: &str) -> Self {
        self.number(text.len() as u64).raw(text.as_bytes())
    }
}

fn checksum(key: &[u8], body: &[u8]) -> [u8; 4] {
    // Castagnoli's polynomial, bit by bit.
    let mut crc = !0_u32;
    for byte in key.iter().chain(body) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).to_le_bytes()
}

/// One of the crate's own values: format, content, checksum.
pub fn sealed(key: &[u8], format: u8, content: &[u8]) -> Vec<u8> {
    let body = [&[format], content].concat();
    [body.clone(), checksum(key, &body).to_vec()].concat()
}

pub const TOMBSTONE: u8 = 1;
const COMPANION: u8 = 2;
pub const DERIVED: u8 = 4;
pub const FAILED: u8 = 8;

/// A record's envelope. Versions and lengths are below 128, so that each is one byte.
pub fn envelope(key: &[u8], flags: u8, version: u8, main: &[u8], companion: Option<(u8, &[u8])>) -> Vec<u8> {
    let mut body = match companion {
        None => vec![0x10 | flags, version],
        Some((other, form)) => {
            vec![0x10 | flags | COMPANION, version, other, u8::try_from(form.len()).unwrap()]
        }
    };
    assert!(body.iter().skip(1).all(|byte| *byte < 128));
    body.extend_from_slice(main);
    body.extend_from_slice(companion.map_or(&[], |(_, form)| form));
    [body.clone(), checksum(key, &body).to_vec()].concat()
}

/// The bytes of a user of version 1, and of version 2.
pub fn user_v1(name: &str, age: u64) -> Vec<u8> {
    Bytes::default().text(name).number(age).0
}

pub fn user_v2(first: &str, last: &str, age: u64, email: Option<&str>) -> Vec<u8> {
    let user = Bytes::default().text(first).text(last).number(age).flag(email.is_some());
    email.map_or(user.clone(), |email| user.text(email)).0
}

/// A catalog with one table `users`, and perhaps a migration `split` of it.
#[derive(Clone)]
pub struct Catalog {
    pub engine: &'static str,
    pub next_id: u64,
    pub id: u64,
    pub active: u64,
    pub floor: u64,
    pub stored: u64,
    pub oldest: u64,
    pub generations: Vec<u64>,
    /// Its phase; it goes from version 1 to 2.
    pub migration: Option<u8>,
}

/// A settled table at version 1.
pub fn settled() -> Catalog {
    let (active, floor, stored, oldest) = (1, 1, 1, 1);
    let generations = vec![2];
    Catalog {
        engine: "memory",
        next_id: 4,
        id: 1,
        active,
        floor,
        stored,
        oldest,
        generations,
        migration: None,
    }
}

/// The same with an open migration to version 2.
pub fn migrating(phase: u8) -> Catalog {
    Catalog { active: 2, generations: vec![2, 3], migration: Some(phase), ..settled() }
}

impl Catalog {
    pub fn content(&self) -> Vec<u8> {
        // Engine, revision, source of ids.
        let mut out = Bytes::default().text(self.engine).number(7).number(self.next_id);
        // One table.
        out = out.number(1).text("users").number(self.id);
        out = out.number(self.active).number(self.floor).number(self.stored).number(self.oldest);
        out = out.number(self.generations.len() as u64);
        for generation in &self.generations {
            out = out.number(*generation).flag(false);
        }
        // No fingerprints are known; the open migration.
        out = out.number(0);
        match self.migration {
            None => out = out.flag(false).number(0),
            Some(phase) => {
                out = out.flag(true).text("split");
                // One migration: why, by, phase, one-way, paused, fenced, time, one step.
                out = out.number(1).text("split").text("names").text("me").raw(&[phase]);
                out = out.flag(false).flag(true).flag(false).number(1_700_000_000_000);
                out = out.number(1).text("users").number(1).number(2).flag(false);
            }
        }
        // An empty ledger and outbox.
        out.number(0).raw(&[0; 32]).number(0).0
    }

    pub fn bytes(&self) -> Vec<u8> {
        sealed(b"catalog", 1, &self.content())
    }
}

/// Every value of an engine: tree, key, value.
pub type Dump = Vec<(String, Vec<u8>, Vec<u8>)>;

pub fn dump(engine: &dyn Engine) -> Dump {
    use std::ops::Bound::Unbounded;
    let mut names = engine.trees().unwrap();
    names.sort();
    let mut all = Dump::new();
    for name in names {
        let mut page = Page::new();
        assert!(
            engine.tree(&name).unwrap().scan((Unbounded, Unbounded), false, usize::MAX, &mut page).unwrap()
        );
        all.extend(page.iter().map(|(key, value)| (name.clone(), key.to_vec(), value.to_vec())));
    }
    all
}

pub fn load(dump: &Dump) -> MemoryEngine {
    let engine = MemoryEngine::recording();
    for (tree, key, value) in dump {
        engine.tree(tree).unwrap().put(key, value).unwrap();
    }
    engine.flush().unwrap();
    engine
}

/// An engine in memory with a catalog and one generation of records.
pub fn store_of(catalog: &Catalog, records: &[(u64, Vec<u8>)]) -> MemoryEngine {
    let mut all = vec![("catalog".to_owned(), b"catalog".to_vec(), catalog.bytes())];
    for (key, value) in records {
        all.push(("1/2".to_owned(), key.to_be_bytes().to_vec(), value.clone()));
    }
    load(&all)
}
