//! Adoption: the records of a program that kept them in sled by hand become a table.
//!
//! Give [`SledImport`] the directory of the old database and a function that reads one of its records; it fills a new
//! (or empty) table, all of it or nothing. See `examples/import_sled.rs`.

use std::path::{Path, PathBuf};

use crate::engine::{ForeignSled, Page};
use crate::error::{Cast, CastError, EngineErrorKind, Error, Result};
use crate::form::envelope::{self, Flags};
use crate::pace::Budget;
use crate::record::key::Key;
use crate::record::lineage;
use crate::record::version::Version;
use crate::state::catalog::room;
use crate::state::ledger::Event;
use crate::table::fill::Fill;
use crate::table::typed::{Table, Typed, encode_key};

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Records that are in the table now.
    pub records: u64,
    /// Records of the source that were skipped.
    pub skipped: u64,
    /// The first 1 000 of them.
    pub bad: Vec<BadRecord>,
}

/// A record of the source that could not be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadRecord {
    /// Its key in the source.
    pub key: Vec<u8>,
    /// What is wrong with it.
    pub reason: String,
}

const BAD_MAX: usize = 1000;
const PAGE_RECORDS: usize = 256;

/// An import from a tree of a sled 0.34 database; ended by [`SledImport::into_table`] or [`SledImport::as_encoded`].
///
/// The program that owns the database must have closed it. It is opened by sled itself, which may repair the end of its
/// log and write its own bookkeeping; no record is changed. If in doubt, import from a copy.
#[must_use = "nothing is imported until a table is named"]
#[derive(Debug, Clone)]
pub struct SledImport {
    path: PathBuf,
    tree: Option<String>,
    skip_bad: bool,
    budget: Option<Budget>,
    why: String,
    by: String,
}

impl SledImport {
    /// An import from the default tree of the database in the directory `path`.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        Self { path, tree: None, skip_bad: false, budget: None, why: String::new(), by: String::new() }
    }

    /// Another tree than the default one.
    pub fn tree(mut self, name: impl Into<String>) -> Self {
        self.tree = Some(name.into());
        self
    }

    /// Goes on past records that cannot be imported and lists them. Default: the first one ends the import, and nothing
    /// is imported.
    pub fn skip_bad(mut self) -> Self {
        self.skip_bad = true;
        self
    }

    /// What the import may take from the traffic beside it. Default: the store's budget. A program that has no traffic
    /// yet gives [`Budget::unlimited`].
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Why, for the ledger.
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// By whom, for the ledger.
    pub fn by(mut self, by: impl Into<String>) -> Self {
        self.by = by.into();
        self
    }

    /// Imports every record, as `read` understands it, into a table that is empty.
    ///
    /// `read` gets key and value as sled has them. For values that bincode wrote there are
    /// [`codec::decode_bincode1`](crate::record::codec::decode_bincode1) (bincode 1) and [`Version::decode`] (bincode 2, standard
    /// configuration). It runs under no lock. Two records of the same key are one bad record.
    ///
    /// The table can be read meanwhile, as the empty one that it is, and not be written. When the call returns all is
    /// durable; after a crash before that the table is empty.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if `path` is no sled 0.34 database that can be opened, or part of a store; [`Error::Locked`] if
    /// it is open elsewhere; [`Error::State`] if the table is not empty, has an open migration, or is being filled;
    /// [`Error::Cast`] with [`Cast::Import`] for a bad record.
    pub fn into_table<K: Key, V: Version>(
        self,
        table: &Table<K, V>,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<(K, V), CastError>,
    ) -> Result<Imported> {
        self.run(table, |fill, key, value| {
            let (key, record) = read(key, value)?;
            let key = encode_key(&key);
            let state = fill.table();
            let sealed = state.settled_value(&key, &Typed(&record), V::VERSION, V::VERSION, None);
            Ok((key, sealed.map_err(|e| CastError::new(plain(e)))?))
        })
    }

    /// Imports every record whose value is already what [`Version::encode`] of `V` writes (bincode 2 in its standard
    /// configuration, unless `V` has its own codec). The bytes are taken as they are, once they were seen to decode and
    /// to keep the rules of `V`. `key` reads a key. Otherwise as [`SledImport::into_table`].
    ///
    /// # Errors
    ///
    /// As [`SledImport::into_table`].
    pub fn as_encoded<K: Key, V: Version>(
        self,
        table: &Table<K, V>,
        mut key: impl FnMut(&[u8]) -> Result<K, CastError>,
    ) -> Result<Imported> {
        self.run(table, |_, source_key, value| {
            let key = encode_key(&key(source_key)?);
            let record = V::decode(value)?;
            lineage::validate_at(&record, V::VERSION, None).map_err(|e| e.source)?;
            let sealed = envelope::seal(&key, Flags::NONE, V::VERSION, value, None);
            Ok((key, sealed))
        })
    }

    fn run<K: Key, V: Version>(
        self,
        table: &Table<K, V>,
        mut sealed: impl FnMut(&Fill, &[u8], &[u8]) -> Result<(Vec<u8>, Vec<u8>), CastError>,
    ) -> Result<Imported> {
        let core = &table.lease().0;
        room::check_texts(&self.why, &self.by)?;
        let budget = self.budget.unwrap_or(core.shared.settings.budget);
        budget.check()?;
        let source = self.open()?;
        let mut fill = Fill::begin(core, table.state(), V::VERSION, budget)?;
        let mut imported = Imported::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let mut page = Page::new();
            let end = source.page(after.as_deref(), PAGE_RECORDS, &mut page)?;
            for (key, value) in &page {
                let outcome = sealed(&fill, key, value);
                let bad = match outcome {
                    Ok((own, envelope)) => match fill.insert(&own, &envelope) {
                        Ok(true) => continue,
                        Ok(false) => "an earlier record of the source has the same key".to_owned(),
                        Err(e @ Error::Limit { .. }) => plain(e),
                        Err(e) => return Err(e),
                    },
                    Err(e) => e.message().to_owned(),
                };
                if !self.skip_bad {
                    return Err(Error::Cast {
                        table: table.name(),
                        key: key.to_vec(),
                        cast: Cast::Import,
                        from: 0,
                        to: V::VERSION,
                        source: CastError::new(bad),
                    });
                }
                imported.skipped += 1;
                if imported.bad.len() < BAD_MAX {
                    imported.bad.push(BadRecord { key: key.to_vec(), reason: bad });
                }
            }
            after = page.pop().map(|(key, _)| key.to_vec());
            if end || after.is_none() {
                break;
            }
        }
        let event = Event::new("import", &table.name()).because(&self.why, &self.by);
        imported.records = fill.publish(event.count("skipped", imported.skipped))?;
        Ok(imported)
    }

    fn open(&self) -> Result<ForeignSled> {
        let refuse = |reason: String| Err(Error::Path { path: self.path.clone(), reason, source: None });
        let is_store = |path: &Path| path.join("EXUVIA").exists() || path.join("EXUVIA.new").exists();
        let canonical = self.path.canonicalize();
        let inside = canonical.is_ok_and(|path| path.parent().is_some_and(is_store));
        if inside || is_store(&self.path) {
            return refuse(
                "is (part of) a store of exuvia, whose tables need no import; copy the store".to_owned(),
            );
        }
        ForeignSled::open(&self.path, self.tree.as_deref()).or_else(|e| match e.kind() {
            EngineErrorKind::Locked => Err(Error::Locked { path: self.path.clone() }),
            _ => refuse(format!("cannot be imported: {e}; name the directory of a sled 0.34 database")),
        })
    }
}

/// A refusal of the store, without the place: that is the source's key.
fn plain(error: Error) -> String {
    match error {
        Error::Cast { source, .. } => source.message().to_owned(),
        Error::Codec { reason, .. } => reason,
        other => other.to_string(),
    }
}
