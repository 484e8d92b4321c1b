//! A table read without its Rust types.
//!
//! No casts are at hand, so a view sees only what lies there physically: in a settled table the stored version, in an
//! open migration `from` (always whole, unless it is one way) or `to` (as far as the backfill has come).

use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::{hex, key};
use crate::error::{Error, Result};
use crate::form::resolve::Form;
use crate::migration::core::Lease;
use crate::record::codec;
use crate::record::shape::{KeyType, Shape, ShapeNode};
use crate::state::catalog::{self, TableEntry};
use crate::state::route::{Found, Kind, Route, TableState};
use crate::store::handle::Store;
use crate::table::scan::Pages;

/// A codec that nobody named: the shape is in words only, or not known.
const UNNAMED: &str = "custom";

/// How the bytes of a record are read.
#[derive(Debug, Clone)]
pub(super) enum Codec {
    Shape(Shape),
    /// The name of a codec of its own.
    Own(String),
}

/// A table at one view, read as JSON. Made by [`Store::rows`].
#[derive(Clone)]
pub struct Rows {
    /// As it was when it was opened.
    name: String,
    state: Arc<TableState>,
    _lease: Arc<Lease>,
    key: KeyType,
    view: u32,
    oldest: u32,
    pub(super) codec: Codec,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("table", &self.name).field("view", &self.view).finish_non_exhaustive()
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// The key, as [`decode_key`](super::decode_key) shows it.
    pub key: Value,
    /// The version that the record is shown in.
    pub version: u32,
    /// The record, as [`decode`](super::decode) shows it.
    pub record: Value,
}

impl Store {
    /// Opens a table for reading as JSON, by the stored shapes.
    ///
    /// Without `view`: at the stored version, which in an open migration is `from`.
    ///
    /// # Errors
    ///
    /// No table of this name, or no version `view` that records are written in now ([`Error::State`]).
    pub fn rows(&self, table: &str, view: Option<u32>) -> Result<Rows> {
        let core = self.core();
        core.shared.check_usable()?;
        let found = core.find(table);
        let (state, entry) =
            found.ok_or_else(|| Error::state(format!("table {table}"), "there is no table of this name"))?;
        let route = state.route_owned();
        let (view, oldest) = view_of(table, &entry, &route, view)?;
        let codec = codec_of(core, &entry, view)?;
        let key = entry.key.clone().unwrap_or(KeyType::Custom);
        Ok(Rows { name: table.to_owned(), state, _lease: Arc::clone(self.lease()), key, view, oldest, codec })
    }
}

/// The view, and the oldest version whose bytes are those of the view too (after a step of metadata only).
fn view_of(table: &str, entry: &TableEntry, route: &Route, view: Option<u32>) -> Result<(u32, u32)> {
    let there = match &route.kind {
        Kind::Settled { stored, .. } => vec![*stored],
        Kind::Open(open) => vec![open.from, open.to],
        Kind::Folding(open) => vec![open.from],
        Kind::Dropped => Vec::new(),
    };
    let default = there.first().copied().unwrap_or(entry.stored);
    let view = view.unwrap_or(default);
    if !there.contains(&view) {
        let there = there.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ");
        let reason = format!("no record is written in version {view} now; ask for version {there}");
        return Err(Error::state(format!("table {table}"), reason));
    }
    // Below the floor they are the same bytes; above it, in a salvaged table, they need not be.
    let alike = view == default && entry.floor == view;
    Ok((view, if alike { entry.oldest } else { view }))
}

fn codec_of(core: &crate::migration::core::Core, entry: &TableEntry, view: u32) -> Result<Codec> {
    let name = entry.codecs.get(&view).map_or(codec::BINCODE, String::as_str);
    if name != codec::BINCODE {
        return Ok(Codec::Own(name.to_owned()));
    }
    let Some(fingerprint) = entry.shapes.get(&view) else {
        return Ok(Codec::Own(UNNAMED.to_owned()));
    };
    let shape = catalog::load_shape(&*core.shared.engine, fingerprint)?;
    Ok(match shape.root() {
        ShapeNode::Explicit(_) => Codec::Own(UNNAMED.to_owned()),
        _ => Codec::Shape(shape),
    })
}

impl Rows {
    /// The table's name.
    pub fn table(&self) -> &str {
        &self.name
    }

    /// The type of the keys; [`KeyType::Custom`] if the catalog does not know it.
    pub fn key_type(&self) -> &KeyType {
        &self.key
    }

    /// The version in which records are shown.
    pub fn version(&self) -> u32 {
        self.view
    }

    /// The name of the codec of the records.
    pub fn codec(&self) -> &str {
        match &self.codec {
            Codec::Shape(_) => codec::BINCODE,
            Codec::Own(name) => name,
        }
    }

    /// The shape by which records are read, if they can be.
    pub fn shape(&self) -> Option<&Shape> {
        match &self.codec {
            Codec::Shape(shape) => Some(shape),
            Codec::Own(_) => None,
        }
    }

    /// The record under a key, given as [`encode_key`](super::encode_key) takes it.
    ///
    /// # Errors
    ///
    /// As those of a typed [`get`](crate::Table::get); [`Error::Codec`] for a key of another type, or a record that
    /// does not have the shape; [`Error::Version`] for a record that is not there in this version.
    pub fn get(&self, key: &Value) -> Result<Option<Row>> {
        let bytes = key::encode_key(&self.key, key).map_err(|e| self.bad_key(&[], e.message()))?;
        match self.state.read(&bytes, self.view)? {
            Found::Absent => Ok(None),
            found => self.row(&bytes, &found).map(Some),
        }
    }

    /// The records of a range of keys, in the order of the keys; double-ended. Otherwise as [`crate::Table::scan`].
    ///
    /// # Errors
    ///
    /// A bound of another type.
    pub fn scan(&self, from: Bound<&Value>, to: Bound<&Value>) -> Result<Scan> {
        let bound = |bound: Bound<&Value>| {
            let encode =
                |value| key::encode_key(&self.key, value).map_err(|e| self.bad_key(&[], e.message()));
            Ok::<_, Error>(match bound {
                Bound::Included(value) => Bound::Included(encode(value)?),
                Bound::Excluded(value) => Bound::Excluded(encode(value)?),
                Bound::Unbounded => Bound::Unbounded,
            })
        };
        Ok(self.scan_bytes((bound(from)?, bound(to)?)))
    }

    /// The records whose key begins with `prefix`: text, the hexadecimal digits of bytes, or a JSON array of a tuple's
    /// first members.
    ///
    /// # Errors
    ///
    /// A prefix of another type.
    pub fn scan_prefix(&self, prefix: &str) -> Result<Scan> {
        let from = key::encode_prefix(&self.key, prefix).map_err(|e| self.bad_key(&[], e.message()))?;
        let to = crate::record::key::after_prefix(&from).map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.scan_bytes((Bound::Included(from), to)))
    }

    fn scan_bytes(&self, range: (Bound<Vec<u8>>, Bound<Vec<u8>>)) -> Scan {
        let pages = Pages::new(Arc::clone(&self.state), self.view, range);
        Scan { pages, rows: self.clone() }
    }

    pub(super) fn state(&self) -> &TableState {
        &self.state
    }

    fn bad_key(&self, key: &[u8], reason: &str) -> Error {
        let reason = format!("the key: {reason}");
        Error::Codec { table: self.table().to_owned(), key: key.to_vec(), version: self.view, reason }
    }

    fn row(&self, key: &[u8], found: &Found) -> Result<Row> {
        let form = self.form(key, found)?;
        let record = match &self.codec {
            Codec::Own(_) => hex::marked(form),
            Codec::Shape(shape) => super::decode(shape, form).map_err(|e| Error::Codec {
                table: self.table().to_owned(),
                key: key.to_vec(),
                version: self.view,
                reason: format!(
                    "{}; a type with an encoding of its own has to name it (Version::CODEC)",
                    e.message()
                ),
            })?,
        };
        let key = super::decode_key(&self.key, key).map_err(|e| {
            Error::corrupt(self.table(), key, format!("the key does not decode: {}", e.message()))
        })?;
        Ok(Row { key, version: self.view, record })
    }

    /// The bytes of the view's version.
    fn form<'f>(&self, key: &[u8], found: &'f Found) -> Result<&'f [u8]> {
        let (version, bytes) = match found {
            Found::Form { entry, form: Form::Companion, .. } => entry.companion().unwrap_or_default(),
            Found::Form { entry, form: Form::Merge, .. } => (entry.version(), &[][..]),
            Found::Form { entry, .. } => (entry.version(), entry.main()),
            Found::Absent => (0, &[][..]),
        };
        if version == self.view || (self.oldest..self.view).contains(&version) {
            return Ok(bytes);
        }
        let reason = format!(
            "key {} is there in version {version} only: the backfill has not brought it forward, and that needs the \
             program's code; read it at version {version}",
            crate::error::ShowKey(key)
        );
        Err(self.state.refuse_version(self.view, reason))
    }
}

/// Records of a range. An error ends it, as its last item.
#[must_use = "a scan reads nothing until it is iterated"]
pub struct Scan {
    pages: Pages,
    rows: Rows,
}

impl Scan {
    fn row(&mut self, next: Option<Result<(crate::engine::Value, Found)>>) -> Option<Result<Row>> {
        let row = next?.and_then(|(key, found)| self.rows.row(&key, &found));
        if row.is_err() {
            self.pages.end();
        }
        Some(row)
    }
}

impl Iterator for Scan {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.pages.next(false);
        self.row(next)
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        let next = self.pages.next(true);
        self.row(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, MemoryEngine};
    use crate::form::envelope::{Flags, seal};
    use crate::{Plain, Table};

    /// The envelope is whole, and what is in it is not what the shape says.
    #[test]
    fn a_row_that_cannot_be_shown_ends_the_scan_from_either_end() {
        let engine = MemoryEngine::new();
        let store = Store::options().open_in(Arc::new(engine.clone())).expect("opened");
        let names: Table<u64, Plain<String>> = store.table("names").expect("made");
        for id in 1..=5 {
            names.put(&id, &Plain(format!("name {id}"))).expect("put");
        }
        let key = 3_u64.to_be_bytes();
        let tree = engine.tree("1/2").expect("the table's");
        assert!(tree.get(&key).expect("read").is_some());
        tree.put(&key, &seal(&key, Flags::NONE, 1, b"\x05ab", None)).expect("put");
        let rows = store.rows("names", None).expect("it is there");
        for reverse in [false, true] {
            let mut scan = rows.scan(Bound::Unbounded, Bound::Unbounded).expect("any range");
            let mut next = || if reverse { scan.next_back() } else { scan.next() };
            assert!(next().is_some_and(|row| row.is_ok()) && next().is_some_and(|row| row.is_ok()));
            assert!(next().is_some_and(|row| row.is_err()));
            assert!(next().is_none());
        }
    }
}
