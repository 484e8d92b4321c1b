//! Export and import: a store as JSON lines.
//!
//! The first line says what the tables are, each further one is a record:
//!
//! ```text
//! {"exuvia":1,"tables":[{"table":"users","key":"u64","version":1,"codec":"bincode","fingerprint":"6c90…","shape":{…}}]}
//! {"table":"users","key":7,"version":1,"record":{"name":"Ada","age":36}}
//! ```
//!
//! An import makes the tables by that, and the program then opens them with its types, which are checked as ever. The
//! program's own rules (`Version::validate`) are not asked: there is no code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rows::{Row, Rows, Scan};
use super::{hex, key};
use crate::error::{CastError, Error, Result};
use crate::record::codec;
use crate::record::lineage::{CastFailure, FailureKind, Stored};
use crate::record::shape::{KeyType, Shape};
use crate::state::catalog::room;
use crate::state::ledger::Event;
use crate::state::route::Kind;
use crate::store::handle::Store;
use crate::store::types::{NewTable, create};
use crate::table::fill::Fill;
use crate::table::write::Encoder;

/// The format of the lines.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    exuvia: u32,
    tables: Vec<HeaderTable>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderTable {
    table: String,
    key: KeyType,
    version: u32,
    codec: String,
    fingerprint: Option<String>,
    shape: Option<Shape>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    table: String,
    key: Value,
    version: u32,
    record: Value,
}

/// The lines of an export, without their ends. Made by [`Store::export`].
#[must_use = "an export reads nothing until it is iterated"]
pub struct Export {
    header: Option<String>,
    rows: std::vec::IntoIter<Rows>,
    scan: Option<(String, Scan)>,
    failed: bool,
}

impl Store {
    /// Every record of some tables, or of all if none is named, as lines of JSON: first a header, then the records in
    /// the order of tables and keys. `view` as in [`Store::rows`].
    ///
    /// Each record is of one moment; the whole is, if nobody writes meanwhile. An error ends it, as its last item.
    ///
    /// # Errors
    ///
    /// As [`Store::rows`].
    pub fn export(&self, tables: &[String], view: Option<u32>) -> Result<Export> {
        let names = if tables.is_empty() { self.tables() } else { tables.to_vec() };
        let rows = names.iter().map(|name| self.rows(name, view)).collect::<Result<Vec<_>>>()?;
        let tables = rows.iter().map(|rows| HeaderTable {
            table: rows.table().to_owned(),
            key: rows.key_type().clone(),
            version: rows.version(),
            codec: rows.codec().to_owned(),
            fingerprint: rows.shape().map(|shape| hex::text(&shape.fingerprint())),
            shape: rows.shape().cloned(),
        });
        let header = text(&Header { exuvia: FORMAT, tables: tables.collect() })?;
        Ok(Export { header: Some(header), rows: rows.into_iter(), scan: None, failed: false })
    }
}

fn text(line: &impl Serialize) -> Result<String> {
    serde_json::to_string(line).map_err(|e| Error::state("export", format!("JSON cannot be written: {e}")))
}

impl Iterator for Export {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(header) = self.header.take() {
            return Some(Ok(header));
        }
        while !self.failed {
            if let Some((table, scan)) = &mut self.scan
                && let Some(next) = scan.next()
            {
                let line = next.and_then(|Row { key, version, record }| {
                    text(&Line { table: table.clone(), key, version, record })
                });
                self.failed = line.is_err();
                return Some(line);
            }
            let rows = self.rows.next()?;
            let all = std::ops::Bound::Unbounded;
            match rows.scan(all, all) {
                Ok(scan) => self.scan = Some((rows.table().to_owned(), scan)),
                Err(e) => {
                    self.failed = true;
                    return Some(Err(e));
                }
            }
        }
        None
    }
}

/// Takes the lines of an export into a store, into tables that are absent or empty. Made by [`Store::import`]. Dropped
/// before [`Import::finish`] it leaves these tables empty.
#[must_use = "nothing is imported until `finish`"]
pub struct Import {
    trial: bool,
    // Before the store: what is being filled is let go while it is open.
    tables: BTreeMap<String, Target>,
    header_seen: bool,
    store: Store,
}

struct Target {
    header: HeaderTable,
    /// `None` in a trial.
    fill: Option<Fill>,
    records: u64,
}

impl Store {
    /// An import of JSON lines. Each table comes whole or not at all: until [`Import::finish`] it can be read, as the empty
    /// one that it is, and not be written. Paced by the store's budget. A `trial` checks every line, but for keys that
    /// come twice, and makes and writes nothing.
    pub fn import(&self, trial: bool) -> Import {
        Import { trial, tables: BTreeMap::new(), header_seen: false, store: self.clone() }
    }
}

impl Import {
    /// Takes the next line; an empty one is passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] for a line that is not of an export (a field that is unknown or there twice included), [`Error::Codec`] for a key or record that does not have
    /// the type or shape of its table, [`Error::State`] for a table that is not empty or not the same, or a key that
    /// comes twice. The line is as if it had not been there then.
    pub fn line(&mut self, line: &str) -> Result<()> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let not_ours =
            |e: serde_json::Error| Error::Format { reason: format!("not a line of an export: {e}") };
        let line = crate::strict::parse(line.as_bytes()).map_err(not_ours)?;
        if self.header_seen {
            return self.record(serde_json::from_value(line).map_err(not_ours)?);
        }
        let header: Header = serde_json::from_value(line).map_err(not_ours)?;
        if header.exuvia != FORMAT {
            let reason = format!("the export has format {}, and this release reads {FORMAT}", header.exuvia);
            return Err(Error::Format { reason });
        }
        for table in header.tables {
            self.table(table)?;
        }
        self.header_seen = true;
        Ok(())
    }

    /// Ends the import: each table is published, by one durable change with an entry in the ledger. Answers the number of
    /// records of each table.
    ///
    /// # Errors
    ///
    /// No header, a failing engine, or a verb of somebody else on a table meanwhile: that table and those after it, by
    /// name, are as they were.
    pub fn finish(self) -> Result<BTreeMap<String, u64>> {
        if !self.header_seen {
            return Err(Error::Format { reason: "there is no line of an export".to_owned() });
        }
        let mut counts = BTreeMap::new();
        for (name, Target { fill, records, .. }) in self.tables {
            if let Some(fill) = fill {
                fill.publish(Event::new("import", &name))?;
            }
            counts.insert(name, records);
        }
        Ok(counts)
    }

    /// How many records of each table were taken so far.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.tables.iter().map(|(name, target)| (name.clone(), target.records)).collect()
    }

    fn table(&mut self, header: HeaderTable) -> Result<()> {
        let name = header.table.clone();
        let refuse = |reason: String| Error::state(format!("table {name}"), reason);
        room::check_table_name(&name)?;
        if header.version == 0 || self.tables.contains_key(&name) {
            return Err(Error::Format {
                reason: format!("the header names table {name} twice, or in version 0"),
            });
        }
        let shape = header.shape.clone().filter(|_| header.codec == codec::BINCODE);
        let Some(shape) = shape else {
            let reason = "its records have a codec of their own, and no shape by which a table could be made; have the \
                          program write them";
            return Err(refuse(reason.to_owned()));
        };
        if header.fingerprint != Some(hex::text(&shape.fingerprint())) {
            return Err(refuse(
                "its shape and its fingerprint in the header do not belong together".to_owned(),
            ));
        }
        let core = self.store.core();
        let state = match core.find(&name) {
            Some((state, _)) => {
                self.check_same(&header, &shape)?;
                Some(state)
            }
            None if self.trial => None,
            None => {
                let HeaderTable { version, key, codec, .. } = header.clone();
                Some(create(core, &name, NewTable { version, shape, key, codec })?.0)
            }
        };
        let fill = match state {
            Some(state) if !self.trial => {
                Some(Fill::begin(core, &state, header.version, core.shared.settings.budget)?)
            }
            _ => None,
        };
        self.tables.insert(name, Target { header, fill, records: 0 });
        Ok(())
    }

    /// Whether a table that is there can take the records.
    fn check_same(&self, header: &HeaderTable, shape: &Shape) -> Result<()> {
        let refuse = |reason: String| Err(Error::state(format!("table {}", header.table), reason));
        let rows = self.store.rows(&header.table, None)?;
        if !matches!(rows.state().route_owned().kind, Kind::Settled { .. }) {
            return refuse("a migration of it is open; contract or abandon it first".to_owned());
        }
        if rows.version() != header.version || rows.key_type() != &header.key {
            return refuse(format!(
                "it has keys of type {} and version {}, and the records have keys of type {} and version {}",
                rows.key_type(),
                rows.version(),
                header.key,
                header.version
            ));
        }
        if rows.shape().map(Shape::fingerprint) != Some(shape.fingerprint()) {
            return refuse("its records have another shape than those of the export".to_owned());
        }
        let all = std::ops::Bound::Unbounded;
        if rows.scan(all, all)?.next().is_some() {
            return refuse("it is not empty; import into a store without it".to_owned());
        }
        Ok(())
    }

    fn record(&mut self, line: Line) -> Result<()> {
        let Some(target) = self.tables.get_mut(&line.table) else {
            return Err(Error::Format { reason: format!("the header names no table {}", line.table) });
        };
        let HeaderTable { table, key: key_type, version, .. } = &target.header;
        let version = *version;
        let bad = |key: &[u8], e: CastError| Error::Codec {
            table: table.clone(),
            key: key.to_vec(),
            version,
            reason: e.message().to_owned(),
        };
        if line.version != version {
            let reason = format!("the record is of version {}, and the header says {version}", line.version);
            return Err(Error::Format { reason });
        }
        let key = key::encode_key(key_type, &line.key).map_err(|e| bad(&[], e))?;
        let shape = target.header.shape.as_ref().ok_or_else(|| bad(&key, super::no_shape()))?;
        let bytes = super::encode(shape, &line.record).map_err(|e| bad(&key, e))?;
        if let Some(fill) = &mut target.fill {
            let raw = Raw { version, bytes: &bytes };
            let envelope = fill.table().settled_value(&key, &raw, version, version, None)?;
            if !fill.insert(&key, &envelope)? {
                let reason = format!("the key {} comes a second time", line.key);
                return Err(Error::state(format!("table {table}"), reason));
            }
        }
        target.records += 1;
        Ok(())
    }
}

/// A record whose bytes are at hand, in one version only.
struct Raw<'b> {
    version: u32,
    bytes: &'b [u8],
}

impl Encoder for Raw<'_> {
    fn view(&self) -> u32 {
        self.version
    }

    fn encode(&self, target: u32, _last: Option<Stored<'_>>, out: &mut Vec<u8>) -> Result<(), CastFailure> {
        if target == self.version {
            out.extend_from_slice(self.bytes);
            return Ok(());
        }
        let source = CastError::new("there is no code to cast it");
        Err(CastFailure { kind: FailureKind::Unknown, from: self.version, to: target, source })
    }

    fn survives(&self, target: u32) -> Result<bool, CastFailure> {
        Ok(target == self.version)
    }

    fn validate(&self, _active: u32, _last: Option<Stored<'_>>) -> Result<(), CastFailure> {
        Ok(())
    }

    fn reads_back(&self, _target: u32, _bytes: &[u8]) -> Result<(), CastFailure> {
        Ok(())
    }

    fn drops_fields(&self, _target: u32) -> bool {
        false
    }
}
