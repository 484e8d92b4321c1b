//! The catalog: what tables and migrations there are and in which state. One value under one key.
//!
//! Everything that a state change touches (several tables, the migration, its ledger entry) lies in this one
//! value, so a state change is one single-key compare-and-set in the engine: atomic on every engine, and on
//! sled without the transaction that would put all later operations behind a lock. The ledger entry waits in
//! the `outbox` until its copy in the ledger tree is durable (see [`crate::state::ledger`]).
//!
//! Progress of a backfill is not a state change: it lies under keys of its own, so that persisting a cursor
//! never competes with a verb.

mod check;
pub(crate) mod closed;
mod format1;
pub(crate) mod place;
pub(crate) mod room;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
/// The tree that holds catalog and progress, and the key of the catalog in it.
pub(crate) use crate::error::{CATALOG_KEY as KEY, CATALOG_TREE as TREE};
use crate::error::{Error, Result};
use crate::record::codec;
use crate::record::shape::{KeyType, Shape};
use crate::state::outbox::Record;

/// The format of the catalog: 1 did not know key types and codecs.
const FORMAT: u8 = 2;
/// The format of everything else.
const FORMAT_OF_OTHERS: u8 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Catalog {
    /// The engine that wrote this.
    pub(crate) engine: String,
    /// Raised by every change.
    pub(crate) revision: u64,
    /// Source of table and generation ids. Ids are never used again (O9).
    pub(crate) next_id: u64,
    pub(crate) tables: BTreeMap<String, TableEntry>,
    /// The open ones, and the newest of the closed: see [`closed`].
    pub(crate) migrations: BTreeMap<String, MigrationEntry>,
    /// Sequence number of the next ledger entry.
    pub(crate) ledger_next: u64,
    /// Hash of the last ledger entry.
    pub(crate) ledger_head: [u8; 32],
    /// The last ledger entries, until their copies in the ledger tree are durable.
    pub(crate) outbox: Vec<Record>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TableEntry {
    pub(crate) id: u64,
    /// The version whose rules bind and to which routing sends traffic.
    pub(crate) active: u32,
    /// The oldest version that can be read back.
    pub(crate) floor: u32,
    /// The version in which a settled table's records are written.
    pub(crate) stored: u32,
    /// The oldest version that a record may still be written in: older than `stored` after a metadata-only step.
    pub(crate) oldest: u32,
    /// Oldest first: one, or base and overlay.
    pub(crate) generations: Vec<Generation>,
    /// The fingerprint of every version seen; the shapes lie under keys of their own ([`save_shape`]).
    pub(crate) shapes: BTreeMap<u32, [u8; 32]>,
    /// The open migration.
    pub(crate) migration: Option<String>,
    /// `None` in a store of format 1 until code has opened the table and a state change has followed.
    pub(crate) key: Option<KeyType>,
    /// The name of the codec of every version whose code was seen since format 2.
    pub(crate) codecs: BTreeMap<u32, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub(crate) id: u64,
    /// Whether it still holds companions and tombstones of a closed migration.
    pub(crate) unswept: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MigrationEntry {
    pub(crate) why: String,
    pub(crate) by: String,
    phase: u8,
    pub(crate) one_way: bool,
    /// The backfill was paused by a caller and stays so after a restart.
    pub(crate) paused: bool,
    /// After a rollback: writers of the new version are refused.
    pub(crate) fenced: bool,
    /// Milliseconds since 1970.
    pub(crate) begun_at_ms: u64,
    pub(crate) tables: Vec<Step>,
}

/// What a migration does to one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) table: String,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// No record is rewritten: the step has no overlay.
    pub(crate) metadata_only: bool,
}

/// The phase of a migration. The codes are the stored ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Phase {
    /// Begun; the background works towards `to`, which is active.
    Open = 1,
    /// As `Open`, and the backfill found nothing left to do.
    Complete = 2,
    /// `from` is active again; both forms of every record are kept.
    RolledBack = 3,
    /// Being abandoned with new writes kept: the overlay is folded into the base. No way back from here.
    Folding = 4,
    /// Closed at `to`.
    Contracted = 5,
    /// Closed at `from`.
    Abandoned = 6,
}

impl Phase {
    const ALL: [Phase; 6] = [
        Phase::Open,
        Phase::Complete,
        Phase::RolledBack,
        Phase::Folding,
        Phase::Contracted,
        Phase::Abandoned,
    ];

    /// Whether the migration is over.
    pub fn is_closed(self) -> bool {
        matches!(self, Phase::Contracted | Phase::Abandoned)
    }

    /// Whether the background works towards `to`.
    pub(crate) fn is_forward(self) -> bool {
        matches!(self, Phase::Open | Phase::Complete)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Open => "open",
            Phase::Complete => "complete",
            Phase::RolledBack => "rolled back",
            Phase::Folding => "folding",
            Phase::Contracted => "contracted",
            Phase::Abandoned => "abandoned",
        })
    }
}

impl MigrationEntry {
    pub(crate) fn new(why: String, by: String, one_way: bool, begun_at_ms: u64, tables: Vec<Step>) -> Self {
        let phase = Phase::Open as u8;
        Self { why, by, phase, one_way, paused: false, fenced: false, begun_at_ms, tables }
    }

    fn known_phase(&self) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| *phase as u8 == self.phase)
    }

    /// The phase. No catalog with an unknown code gets past its reading.
    pub(crate) fn phase(&self) -> Result<Phase> {
        self.known_phase().ok_or_else(|| damaged(format!("unknown phase code {}", self.phase)))
    }

    pub(crate) fn set_phase(&mut self, phase: Phase) {
        self.phase = phase as u8;
    }
}

impl TableEntry {
    /// The engine tree of a generation.
    pub(crate) fn tree(&self, generation: &Generation) -> String {
        format!("{}/{}", self.id, generation.id)
    }

    /// The generation that a settled table reads, and the base of an open migration.
    pub(crate) fn base(&self) -> Option<&Generation> {
        self.generations.first()
    }

    pub(crate) fn overlay(&self) -> Option<&Generation> {
        self.generations.get(1)
    }
}

/// The quarantine tree of a table.
pub(crate) fn quarantine_tree(table: impl std::fmt::Display) -> String {
    format!("quarantine/{table}")
}

impl Catalog {
    pub(crate) fn new(engine: &str) -> Self {
        Self {
            engine: engine.to_owned(),
            revision: 0,
            next_id: 1,
            tables: BTreeMap::new(),
            migrations: BTreeMap::new(),
            ledger_next: 0,
            ledger_head: [0; 32],
            outbox: Vec::new(),
        }
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Leaves out the ids of trees that are there although no commit names them (a verb that died before its
    /// commit): they are being swept, and must not be given out meanwhile (O9).
    pub(crate) fn skip_ids(&mut self, trees: &[String]) {
        for (table, generation) in trees.iter().filter_map(|tree| tree.split_once('/')) {
            if let (Ok(table), Ok(generation)) = (table.parse::<u64>(), generation.parse::<u64>()) {
                self.next_id = self.next_id.max(table.max(generation).saturating_add(1));
            }
        }
    }

    pub(crate) fn table(&self, name: &str) -> Result<&TableEntry> {
        self.tables.get(name).ok_or_else(|| damaged(format!("table {name} is missing")))
    }

    /// The entry of a table for which no migration is open; `what` was to be done to it.
    pub(crate) fn table_without_migration(&mut self, name: &str, what: &str) -> Result<&mut TableEntry> {
        let subject = format!("table {name}");
        let Some(entry) = self.tables.get_mut(name) else {
            return Err(Error::state(subject, "there is no table of this name; `tables()` lists them"));
        };
        match &entry.migration {
            Some(migration) => {
                let reason = format!(
                    "migration {migration} is open, so it cannot be {what}; contract it, or roll it back and abandon it, \
                     first"
                );
                Err(Error::state(subject, reason))
            }
            None => Ok(entry),
        }
    }

    pub(crate) fn table_mut(&mut self, name: &str) -> Result<&mut TableEntry> {
        self.tables.get_mut(name).ok_or_else(|| damaged(format!("table {name} is missing")))
    }

    pub(crate) fn migration(&self, name: &str) -> Result<&MigrationEntry> {
        self.migrations.get(name).ok_or_else(|| no_migration(name))
    }

    pub(crate) fn migration_mut(&mut self, name: &str) -> Result<&mut MigrationEntry> {
        self.migrations.get_mut(name).ok_or_else(|| no_migration(name))
    }

    /// The trees that records may lie in; any other record tree is left over from a closed migration.
    pub(crate) fn is_named(&self, tree: &str) -> bool {
        if tree == TREE || tree == crate::state::outbox::TREE {
            return true;
        }
        if let Some(table) = tree.strip_prefix("quarantine/") {
            // What is in quarantine is so in an open migration only.
            return self.tables.get(table).is_some_and(|table| table.migration.is_some());
        }
        self.tables.values().any(|table| table.generations.iter().any(|g| table.tree(g) == tree))
    }

    /// What damaged bytes say, if they say anything that makes sense: for a salvage, and nothing else.
    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub(crate) fn from_damaged(bytes: &[u8]) -> Option<Self> {
        let (body, _checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        let catalog: Self = codec::decode(body.split_first()?.1).ok()?;
        check::check(&catalog).ok().map(|()| catalog)
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        to_bytes(FORMAT, KEY, self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let catalog: Self = match format_of(bytes) {
            Some(1) => from_bytes::<format1::Catalog>("the catalog", 1, KEY, bytes)?.into(),
            _ => from_bytes("the catalog", FORMAT, KEY, bytes)?,
        };
        check::check(&catalog)?;
        Ok(catalog)
    }
}

pub(crate) fn no_migration(name: &str) -> Error {
    Error::state(format!("migration {name}"), "there is no migration of this name; `migrations()` lists them")
}

fn damaged(reason: String) -> Error {
    Error::corrupt(TREE, KEY, reason)
}

/// The key of a shape: its content names it, so it is written once and never changed.
pub(crate) fn shape_key(fingerprint: &[u8; 32]) -> Vec<u8> {
    let mut key = b"shape/".to_vec();
    key.extend_from_slice(fingerprint);
    key
}

/// Stores a shape and answers its fingerprint. The caller flushes before the state change that makes it known: a
/// catalog must not survive a crash that its shapes did not. A shape that no catalog names, because that change
/// failed, does no harm.
pub(crate) fn save_shape(engine: &dyn Engine, shape: &Shape) -> Result<[u8; 32]> {
    let fingerprint = shape.fingerprint();
    let key = shape_key(&fingerprint);
    let bytes = to_bytes(FORMAT_OF_OTHERS, &key, shape)?;
    let limit = engine.capabilities().value_bytes_max;
    if bytes.len() > limit {
        let what = "bytes in the description of a type (its shape: names of fields and types)";
        return Err(Error::Limit { what, size: bytes.len(), limit });
    }
    engine.tree(TREE)?.put(&key, &bytes)?;
    Ok(fingerprint)
}

/// The shape of a fingerprint.
pub(crate) fn load_shape(engine: &dyn Engine, fingerprint: &[u8; 32]) -> Result<Shape> {
    let key = shape_key(fingerprint);
    let missing = || Error::corrupt(TREE, &key, "the shape of a version is missing");
    let bytes = engine.tree(TREE)?.get(&key)?.ok_or_else(missing)?;
    from_bytes("the shape of a version", FORMAT_OF_OTHERS, &key, &bytes)
}

/// Whether a value is the shape of a fingerprint.
#[cfg(any(feature = "sled", feature = "fjall"))]
pub(crate) fn is_shape(fingerprint: &[u8; 32], bytes: &[u8]) -> bool {
    let key = shape_key(fingerprint);
    let shape = from_bytes::<Shape>("the shape of a version", FORMAT_OF_OTHERS, &key, bytes);
    shape.is_ok_and(|shape| shape.fingerprint() == *fingerprint)
}

/// How far the backfill of one table has come. Persisted with or after a flush of what it claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    stage: u8,
    /// The last base key that is copied, or overlay key that is reverted; empty: none.
    pub(crate) cursor: Vec<u8>,
    pub(crate) counts: Counts,
}

/// What the backfill did to a table so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counts {
    /// Base records that the backfill has passed.
    pub copied: u64,
    /// Records of old writers that were brought forward.
    pub brought_forward: u64,
    /// Upcasts that failed; the records wait in the quarantine.
    pub quarantined: u64,
    /// Merges by the default rule that dropped what only the newer form held.
    pub merges_dropped: u64,
}

/// What the backfill of one table does now. The codes are the stored ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// A restart removes derived entries; the frontier is at the start.
    Reverting = 1,
    /// The base is copied from the cursor on.
    Copying = 2,
    /// Every base key has an overlay entry; what old writers wrote is brought forward.
    Forwarding = 3,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self { stage: Stage::Copying as u8, cursor: Vec::new(), counts: Counts::default() }
    }

    /// A backfill that starts again: what was derived goes first.
    pub(crate) fn reverting() -> Self {
        Self { stage: Stage::Reverting as u8, ..Self::start() }
    }

    pub(crate) fn stage(&self) -> Result<Stage> {
        [Stage::Reverting, Stage::Copying, Stage::Forwarding]
            .into_iter()
            .find(|stage| *stage as u8 == self.stage)
            .ok_or_else(|| damaged(format!("unknown backfill stage {}", self.stage)))
    }

    pub(crate) fn set_stage(&mut self, stage: Stage) {
        self.stage = stage as u8;
    }

    /// The key of the progress of one table in one generation: a later migration of the table has another.
    pub(crate) fn key(overlay: &str) -> Vec<u8> {
        format!("progress/{overlay}").into_bytes()
    }

    pub(crate) fn to_bytes(&self, key: &[u8]) -> Result<Vec<u8>> {
        to_bytes(FORMAT_OF_OTHERS, key, self)
    }

    pub(crate) fn from_bytes(key: &[u8], bytes: &[u8]) -> Result<Self> {
        let progress: Self = from_bytes("the backfill's progress", FORMAT_OF_OTHERS, key, bytes)?;
        progress.stage()?;
        Ok(progress)
    }
}

/// The format that a value claims to have.
fn format_of(bytes: &[u8]) -> Option<u8> {
    bytes.first().copied()
}

/// Our own persisted values: a format byte, the codec's bytes, CRC-32C over key and all before it.
pub(crate) fn to_bytes<T: Serialize>(format: u8, key: &[u8], value: &T) -> Result<Vec<u8>> {
    let mut out = vec![format];
    codec::encode(value, &mut out).map_err(|e| damaged(format!("cannot be encoded: {e}")))?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &out);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(out)
}

pub(crate) fn from_bytes<T: serde::de::DeserializeOwned>(
    what: &str,
    format: u8,
    key: &[u8],
    bytes: &[u8],
) -> Result<T> {
    let fail = |reason: String| Err(Error::corrupt(TREE, key, format!("{what}: {reason}")));
    let Some(body_len) = bytes.len().checked_sub(4) else {
        return fail("too short".to_owned());
    };
    let (body, crc) = bytes.split_at(body_len);
    let [found, payload @ ..] = body else {
        return fail("too short".to_owned());
    };
    if crc32c::crc32c_append(crc32c::crc32c(key), body).to_le_bytes() != *crc {
        return fail("checksum mismatch".to_owned());
    }
    if *found != format {
        // Whole, and not ours.
        let reason = format!(
            "tree {TREE}, {what}: it has format {found}, and this release reads format {format}: the store is of \
             a newer release of exuvia; use that"
        );
        return Err(Error::Format { reason });
    }
    codec::decode(payload).or_else(|e| fail(e.to_string()))
}
