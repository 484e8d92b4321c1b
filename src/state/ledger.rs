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

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::engine::{Engine, Page};
use crate::error::{Error, Result};
use crate::measure::observe::LedgerEntry;
use crate::state::catalog::{self, Catalog};
pub(crate) use crate::state::outbox::TREE;
use crate::state::outbox::{FORMAT, Record, key};

/// What a verb tells the ledger.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) what: &'static str,
    pub(crate) subject: String,
    pub(crate) why: String,
    pub(crate) by: String,
    pub(crate) counts: Vec<(String, u64)>,
    /// Of each table of a migration: the table, what is counted, whether it can be added up, and how many.
    pub(crate) by_table: Vec<(String, &'static str, bool, u64)>,
}

/// Most bytes of the counts of each table; where there are more, they are added up over the tables.
pub(crate) const COUNTS_BYTES_MAX: usize = 2048;

impl Event {
    pub(crate) fn new(what: &'static str, subject: &str) -> Self {
        Event { what, subject: subject.to_owned(), ..Event::default() }
    }

    pub(crate) fn count(mut self, name: &str, count: u64) -> Self {
        self.counts.push((name.to_owned(), count));
        self
    }

    /// Counts something of one table of a migration.
    pub(crate) fn count_of(mut self, table: &str, name: &'static str, count: u64) -> Self {
        self.by_table.push((table.to_owned(), name, true, count));
        self
    }

    /// A version of one table of a migration.
    pub(crate) fn version(mut self, table: &str, name: &'static str, version: u32) -> Self {
        self.by_table.push((table.to_owned(), name, false, u64::from(version)));
        self
    }

    /// All counts: of each table, or where those are too many of all tables together.
    fn all_counts(&mut self) -> Vec<(String, u64)> {
        let mut counts = std::mem::take(&mut self.counts);
        let by_table = std::mem::take(&mut self.by_table);
        // Two lengths and a number are at most eleven bytes.
        let bytes: usize = by_table.iter().map(|(table, name, ..)| table.len() + name.len() + 12).sum();
        if bytes <= COUNTS_BYTES_MAX {
            counts.extend(by_table.iter().map(|(table, name, _, count)| (format!("{table} {name}"), *count)));
            return counts;
        }
        let tables: BTreeSet<&str> = by_table.iter().map(|(table, ..)| table.as_str()).collect();
        counts.push(("tables".to_owned(), tables.len() as u64));
        let mut sums = BTreeMap::<&str, u64>::new();
        for (_, name, _, count) in by_table.iter().filter(|(.., adds_up, _)| *adds_up) {
            *sums.entry(name).or_default() += count;
        }
        counts.extend(sums.into_iter().map(|(name, sum)| (name.to_owned(), sum)));
        counts
    }

    pub(crate) fn because(mut self, why: &str, by: &str) -> Self {
        self.why = why.to_owned();
        self.by = by.to_owned();
        self
    }
}

/// Appends to the outbox of a catalog that is about to be committed, and drops from it what the last change's
/// flush has made durable in the tree.
pub(crate) fn append(catalog: &mut Catalog, mut event: Event, at_ms: u64, duration_us: u64) -> Result<()> {
    let seq = catalog.ledger_next;
    catalog.outbox.retain(|record| record.seq + 1 >= seq);
    let counts = event.all_counts();
    let Event { what, subject, why, by, .. } = event;
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

/// Reads the whole ledger and checks its chain. Entries are answered up to the first damage, then the damage. State
/// changes may come meanwhile; `now` is the catalog as it is when it is called.
pub(crate) fn read(engine: &dyn Engine, now: &dyn Fn() -> Catalog) -> (Vec<LedgerEntry>, Option<Error>) {
    let mut entries = Vec::new();
    let damage = read_into(engine, now, &mut entries).err();
    (entries, damage)
}

fn read_into(engine: &dyn Engine, now: &dyn Fn() -> Catalog, entries: &mut Vec<LedgerEntry>) -> Result<()> {
    let catalog = now();
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
    tree.scan((Bound::Included(&beyond), Bound::Unbounded), true, 1, &mut page)?;
    // An entry is copied after the catalog that names it is there.
    if page.iter().any(|(last, _)| last[..] >= key(now().ledger_next)[..]) {
        return Err(Error::corrupt(TREE, &beyond, "the ledger is longer than the catalog says"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::MemoryEngine;

    /// The ledger after `count` state changes, each copied out as it comes.
    fn ledger(count: u64) -> (MemoryEngine, Catalog) {
        let (engine, mut catalog) = (MemoryEngine::new(), Catalog::new("memory"));
        for n in 0..count {
            let event = Event::new("begin", "split").count("copied", n).because("a reason", "ada");
            append(&mut catalog, event, 1000 + n, 7).unwrap();
            assert!(copy_out(&engine, &catalog).unwrap(), "the new entry was not there");
            assert!(!copy_out(&engine, &catalog).unwrap(), "it is there now");
        }
        (engine, catalog)
    }

    /// What reading says, and after how many whole entries.
    fn damage(engine: &MemoryEngine, catalog: &Catalog) -> (usize, String) {
        let (entries, damage) = read(engine, &|| catalog.clone());
        (entries.len(), damage.map(|damage| damage.to_string()).unwrap_or_default())
    }

    /// Puts a record under a sequence number, as whoever could write right checksums would.
    fn forge(engine: &MemoryEngine, seq: u64, record: &Record) {
        let key = key(seq);
        engine.tree(TREE).unwrap().put(&key, &catalog::to_bytes(FORMAT, &key, record).unwrap()).unwrap();
    }

    #[test]
    fn every_change_is_told_once_and_follows_the_one_before() {
        let (engine, catalog) = ledger(5);
        let (entries, damage) = read(&engine, &|| catalog.clone());
        assert!(damage.is_none(), "{damage:?}");
        assert_eq!(entries.len(), 5);
        let mut previous = [0; 32];
        for (n, entry) in (0..).zip(&entries) {
            assert_eq!((entry.seq, entry.at_ms, entry.duration_us), (n, 1000 + n, 7));
            assert_eq!((entry.what.as_str(), entry.subject.as_str()), ("begin", "split"));
            assert_eq!((entry.why.as_str(), entry.by.as_str()), ("a reason", "ada"));
            assert_eq!(entry.counts, [("copied".to_owned(), n)]);
            assert_eq!(entry.previous, previous);
            previous = Record::new(entry).unwrap().hash;
        }
        assert_eq!(previous, catalog.ledger_head);
    }

    /// Change n + 1 flushes the copy of entry n, so n may go with change n + 2, and not before.
    #[test]
    fn an_entry_waits_in_the_outbox_until_its_copy_was_flushed() {
        for count in 1..5 {
            let (_, catalog) = ledger(count);
            let waiting: Vec<u64> = catalog.outbox.iter().map(|record| record.seq).collect();
            assert_eq!(waiting, (count.saturating_sub(2)..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_entry_that_is_missing_moved_exchanged_or_cut_off_is_found() {
        let (engine, catalog) = ledger(6);
        let tree = engine.tree(TREE).unwrap();
        let bytes = tree.get(&key(2)).unwrap().unwrap();
        tree.delete(&key(2)).unwrap();
        let (whole, says) = damage(&engine, &catalog);
        assert!(whole == 2 && says.contains("the entry is missing"), "{whole} {says}");
        let record: Record = catalog::from_bytes("ledger entry", FORMAT, &key(2), &bytes).unwrap();

        // Another entry under this number.
        let mut entry = record.entry().unwrap();
        forge(&engine, 2, &Record::new(&LedgerEntry { seq: 3, ..entry.clone() }).unwrap());
        assert!(damage(&engine, &catalog).1.contains("it does not follow the entry before"));
        forge(&engine, 2, &Record { seq: 3, ..record.clone() });
        assert!(damage(&engine, &catalog).1.contains("it says that it is entry 2"));
        // Another content, with and without a hash that fits it: then the next one does not follow.
        "a better reason".clone_into(&mut entry.why);
        let changed = Record::new(&entry).unwrap();
        forge(&engine, 2, &Record { hash: record.hash, ..changed.clone() });
        assert!(damage(&engine, &catalog).1.contains("its hash does not fit its content"));
        forge(&engine, 2, &changed);
        let (whole, says) = damage(&engine, &catalog);
        assert!(whole == 3 && says.contains("it does not follow the entry before"), "{whole} {says}");
        forge(&engine, 2, &record);
        assert_eq!(damage(&engine, &catalog), (6, String::new()));

        // The end: the catalog knows its hash and its length.
        let (_, shorter) = ledger(5);
        let (whole, says) = damage(&engine, &shorter);
        assert!(whole == 5 && says.contains("the ledger is longer than the catalog says"), "{whole} {says}");
        let renamed = Catalog { ledger_head: [1; 32], ..catalog };
        let (whole, says) = damage(&engine, &renamed);
        assert!(whole == 6 && says.contains("not the one that the catalog names"), "{whole} {says}");
    }

    #[test]
    #[cfg(any(feature = "sled", feature = "fjall"))]
    fn a_ledger_that_is_made_anew_from_its_entries_is_the_same() {
        let (engine, catalog) = ledger(5);
        let (entries, _) = read(&engine, &|| catalog.clone());
        let (other, mut anew) = (MemoryEngine::new(), Catalog::new("memory"));
        append(&mut anew, Event::new("salvage", "store"), 1, 1).unwrap();
        rechain(&other, &mut anew, entries.clone()).unwrap();
        assert_eq!((anew.ledger_next, anew.ledger_head), (catalog.ledger_next, catalog.ledger_head));
        assert!(anew.outbox.is_empty());
        let (again, damage) = read(&other, &|| anew.clone());
        assert!(damage.is_none(), "{damage:?}");
        assert_eq!(again, entries);
        // As the tree holds it.
        let stored = other.tree(TREE).unwrap().get(&key(3)).unwrap().unwrap();
        assert_eq!(from_bytes(&key(3), &stored).unwrap(), entries[3]);
        assert!(from_bytes(&key(4), &stored).is_err(), "under the wrong number");
    }
}
