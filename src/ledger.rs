//! The ledger: one entry for every state change, append-only and hash-chained.
//!
//! An entry is committed inside the catalog's own value (its outbox), so it is in the same commit as the change
//! that it tells of. It is copied to the ledger tree after that, and leaves the outbox only when a flush that
//! started after the copy is done:
//!
//! 1. change n: one compare-and-set writes the new catalog with entry n in the outbox; flush; flip.
//! 2. entry n is put into the ledger tree under its sequence number (idempotent).
//! 3. change n + 1 flushes, and with that entry n is durable in the tree; change n + 2 drops it from the outbox.
//!
//! A crash anywhere leaves every entry in the tree, in the outbox, or in both. Each entry holds the hash of the
//! one before it, and the catalog the hash of the last, so a changed, missing or cut-off entry is found.

use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::catalog::{self, Catalog};
use crate::codec;
use crate::engine::{Engine, Page};
use crate::error::{Error, Result};

/// The tree of the ledger; keys are sequence numbers, big endian.
pub(crate) const TREE: &str = "ledger";
const FORMAT: u8 = 1;

/// One state change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Position in the ledger, from 0.
    pub seq: u64,
    /// Milliseconds since 1970, by the system's clock.
    pub at_ms: u64,
    /// What happened: `create table`, `rename table`, `drop table`, `clear table`, `import`, `bulk load`, `copy`, `backup`,
    /// `salvage`, `compact`,
    /// `begin`, `complete`, `reopen`,
    /// `pause`, `unpause`, `restart`, `rollback`, `resume`, `contract`, `fold`, `abandon`, `sweep`.
    pub what: String,
    /// The table or migration.
    pub subject: String,
    /// Why, if the caller said so.
    pub why: String,
    /// By whom, if the caller said so.
    pub by: String,
    /// How long it took up to this entry's commit, in microseconds.
    pub duration_us: u64,
    /// Counts by name, for example `copied`.
    pub counts: Vec<(String, u64)>,
    /// Hash (BLAKE3) of the entry before this one; zeros for the first.
    pub previous: [u8; 32],
}

/// An entry as it is stored: its bytes and their hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    body: Vec<u8>,
    hash: [u8; 32],
}

impl Record {
    fn new(entry: &LedgerEntry) -> Result<Record> {
        let mut body = Vec::new();
        codec::encode(entry, &mut body)
            .map_err(|e| Error::corrupt(TREE, &key(entry.seq), format!("cannot be encoded: {e}")))?;
        let hash = *blake3::hash(&body).as_bytes();
        Ok(Record { seq: entry.seq, body, hash })
    }

    pub(crate) fn entry(&self) -> Result<LedgerEntry> {
        let damaged = |reason: String| Error::corrupt(TREE, &key(self.seq), reason);
        if *blake3::hash(&self.body).as_bytes() != self.hash {
            return Err(damaged("its hash does not fit its content".to_owned()));
        }
        let entry: LedgerEntry = codec::decode(&self.body).map_err(|e| damaged(e.to_string()))?;
        if entry.seq != self.seq {
            return Err(damaged(format!("it says that it is entry {}", entry.seq)));
        }
        Ok(entry)
    }
}

fn key(seq: u64) -> [u8; 8] {
    seq.to_be_bytes()
}

/// What a verb tells the ledger.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) what: &'static str,
    pub(crate) subject: String,
    pub(crate) why: String,
    pub(crate) by: String,
    pub(crate) counts: Vec<(String, u64)>,
}

impl Event {
    pub(crate) fn new(what: &'static str, subject: &str) -> Self {
        Event { what, subject: subject.to_owned(), ..Event::default() }
    }

    pub(crate) fn count(mut self, name: &str, count: u64) -> Self {
        self.counts.push((name.to_owned(), count));
        self
    }

    pub(crate) fn because(mut self, why: &str, by: &str) -> Self {
        self.why = why.to_owned();
        self.by = by.to_owned();
        self
    }
}

/// Appends to the outbox of a catalog that is about to be committed, and drops from it what the last change's
/// flush has made durable in the tree.
pub(crate) fn append(catalog: &mut Catalog, event: Event, at_ms: u64, duration_us: u64) -> Result<()> {
    let seq = catalog.ledger_next;
    catalog.outbox.retain(|record| record.seq + 1 >= seq);
    let Event { what, subject, why, by, counts } = event;
    let previous = catalog.ledger_head;
    let entry =
        LedgerEntry { seq, at_ms, what: what.to_owned(), subject, why, by, duration_us, counts, previous };
    let record = Record::new(&entry)?;
    catalog.ledger_head = record.hash;
    catalog.ledger_next += 1;
    catalog.outbox.push(record);
    Ok(())
}

/// Copies to the ledger tree what of the outbox is not there yet. Answers whether something was not.
pub(crate) fn copy_out(engine: &dyn Engine, catalog: &Catalog) -> Result<bool> {
    let tree = engine.tree(TREE)?;
    let mut written = false;
    for record in &catalog.outbox {
        let key = key(record.seq);
        let bytes = catalog::to_bytes(FORMAT, &key, record)?;
        if tree.get(&key)?.as_deref() != Some(bytes.as_slice()) {
            tree.put(&key, &bytes)?;
            written = true;
        }
    }
    Ok(written)
}

/// An entry as the tree holds it.
#[cfg(any(feature = "sled", feature = "fjall"))]
pub(crate) fn from_bytes(key: &[u8], value: &[u8]) -> Result<LedgerEntry> {
    catalog::from_bytes::<Record>("ledger entry", FORMAT, key, value)?.entry()
}

/// Makes the ledger of a catalog anew from these entries, in `engine`: the same ledger, if they are all of it.
#[cfg(any(feature = "sled", feature = "fjall"))]
pub(crate) fn rechain(engine: &dyn Engine, catalog: &mut Catalog, entries: Vec<LedgerEntry>) -> Result<()> {
    (catalog.ledger_next, catalog.ledger_head) = (0, [0; 32]);
    catalog.outbox.clear();
    for mut entry in entries {
        (entry.seq, entry.previous) = (catalog.ledger_next, catalog.ledger_head);
        let record = Record::new(&entry)?;
        catalog.ledger_head = record.hash;
        catalog.ledger_next += 1;
        let key = key(record.seq);
        engine.tree(TREE)?.put(&key, &catalog::to_bytes(FORMAT, &key, &record)?)?;
    }
    Ok(())
}

/// Reads the whole ledger and checks its chain. Entries are answered up to the first damage, then the damage.
pub(crate) fn read(engine: &dyn Engine, catalog: &Catalog) -> (Vec<LedgerEntry>, Option<Error>) {
    let mut entries = Vec::new();
    let damage = read_into(engine, catalog, &mut entries).err();
    (entries, damage)
}

fn read_into(engine: &dyn Engine, catalog: &Catalog, entries: &mut Vec<LedgerEntry>) -> Result<()> {
    let tree = engine.tree(TREE)?;
    let mut previous = [0; 32];
    for seq in 0..catalog.ledger_next {
        let key = key(seq);
        // What is still in the outbox is read from there: its copy may not be in the tree yet.
        let from_tree;
        let record = match catalog.outbox.iter().find(|record| record.seq == seq) {
            Some(record) => record,
            None => {
                let value =
                    tree.get(&key)?.ok_or_else(|| Error::corrupt(TREE, &key, "the entry is missing"))?;
                from_tree = catalog::from_bytes::<Record>("ledger entry", FORMAT, &key, &value)?;
                &from_tree
            }
        };
        let entry = record.entry()?;
        if entry.previous != previous || entry.seq != seq {
            return Err(Error::corrupt(
                TREE,
                &key,
                "the chain is broken: it does not follow the entry before",
            ));
        }
        previous = record.hash;
        entries.push(entry);
    }
    let beyond = key(catalog.ledger_next);
    if previous != catalog.ledger_head {
        return Err(Error::corrupt(TREE, &beyond, "the last entry is not the one that the catalog names"));
    }
    let mut page = Page::new();
    tree.scan((Bound::Included(&beyond), Bound::Unbounded), false, 1, &mut page)?;
    if !page.is_empty() {
        return Err(Error::corrupt(TREE, &beyond, "the ledger is longer than the catalog says"));
    }
    Ok(())
}
