//! Requests and answers, one JSON object in a line each. The reference is docs/control.md.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::migration::{Backfill, Migration, Status};
use crate::pace::Budget;
use crate::store::handle::Store;

/// The version of the protocol.
const VERSION: u64 = 1;
/// Most ledger entries in an answer.
const ENTRIES_MAX: usize = 1000;

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Refusal {
    kind: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(kind: &'static str, message: String) -> Self {
        Self { kind, message }
    }
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        let kind = match &e {
            Error::State { .. } => "state",
            Error::Conflict { .. } => "conflict",
            Error::Closed => "closed",
            Error::Argument { .. } => "request",
            damage if damage.is_corruption() => "corrupt",
            _ => "failed",
        };
        Self::new(kind, e.to_string())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    #[expect(dead_code, reason = "was looked at before the rest")]
    exuvia: u64,
    verb: Verb,
    #[serde(default)]
    migration: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    by: String,
    #[serde(default)]
    fenced: bool,
    pause_us: Option<u64>,
    core_share: Option<f64>,
    #[serde(default)]
    to: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verb {
    Status,
    Ledger,
    Rollback,
    Resume,
    Pause,
    Unpause,
    Budget,
    Backup,
}

impl Verb {
    /// The field that a request must have, and those that it may.
    fn fields(self) -> (Option<&'static str>, &'static [&'static str]) {
        match self {
            Verb::Status | Verb::Ledger => (None, &[]),
            Verb::Rollback => (Some("migration"), &["why", "by", "fenced"]),
            Verb::Resume | Verb::Pause | Verb::Unpause => (Some("migration"), &["why", "by"]),
            Verb::Budget => (Some("migration"), &["why", "by", "pause_us", "core_share"]),
            Verb::Backup => (Some("to"), &[]),
        }
    }
}

/// Nothing is taken that is unknown, there twice, of another type, or of another verb.
pub(super) fn parse(line: &[u8]) -> Result<Request, Refusal> {
    let refuse = |message: String| Refusal::new("request", message);
    let malformed = |e: serde_json::Error| refuse(format!("not a request: {e}"));
    let value = crate::strict::parse(line).map_err(malformed)?;
    match value.get("exuvia").and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(other) => {
            let message =
                format!("version {other} of the protocol was asked for, and this store speaks {VERSION}");
            return Err(Refusal::new("version", message));
        }
        None => return Err(refuse(format!("a request is an object with \"exuvia\": {VERSION}"))),
    }
    let given: Vec<String> = value.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let request: Request = serde_json::from_value(value).map_err(malformed)?;
    let (needed, allowed) = request.verb.fields();
    let verb = format!("{:?}", request.verb).to_lowercase();
    if let Some(needed) = needed.filter(|needed| !given.iter().any(|name| name == needed)) {
        return Err(refuse(format!("not a request: the verb {verb} needs the field \"{needed}\"")));
    }
    let known =
        |name: &str| ["exuvia", "verb"].contains(&name) || needed == Some(name) || allowed.contains(&name);
    match given.iter().find(|name| !known(name)) {
        Some(name) => Err(refuse(format!("not a request: the verb {verb} has no field {name:?}"))),
        None => Ok(request),
    }
}

pub(super) fn answer(done: &Result<Value, Refusal>) -> Value {
    match done {
        Ok(value) => json!({ "exuvia": VERSION, "ok": value }),
        Err(Refusal { kind, message }) => {
            json!({ "exuvia": VERSION, "error": { "kind": kind, "message": message } })
        }
    }
}

pub(super) fn perform(store: &Store, request: Request, uid: Option<u32>) -> Result<Value, Refusal> {
    let by = match (request.by, uid) {
        (by, Some(uid)) if by.is_empty() => format!("uid {uid}"),
        (by, _) => by,
    };
    let migration = || -> Result<Migration, Refusal> {
        Ok(store.migration(&request.migration)?.why(&request.why).by(&by))
    };
    let done = |migration: Migration| -> Result<Value, Refusal> { Ok(migration_json(&migration.status()?)) };
    match request.verb {
        Verb::Status => status(store),
        Verb::Ledger => ledger(store),
        Verb::Rollback => {
            let migration = migration()?;
            if request.fenced {
                migration.rollback_fenced()?
            } else {
                migration.rollback()?
            }
            done(migration)
        }
        Verb::Resume => migration()?.resume().map_err(Refusal::from).and_then(|()| done(migration()?)),
        Verb::Pause => migration()?.pause().map_err(Refusal::from).and_then(|()| done(migration()?)),
        Verb::Unpause => migration()?.unpause().map_err(Refusal::from).and_then(|()| done(migration()?)),
        Verb::Budget => {
            let migration = migration()?;
            let mut budget = Budget::default();
            if let Some(us) = request.pause_us {
                budget = budget.pause_max(Duration::from_micros(us));
            }
            if let Some(share) = request.core_share {
                budget = budget.core_share(share);
            }
            migration.set_budget(budget)?;
            done(migration)
        }
        Verb::Backup => backup(store, &request.to),
    }
}

fn backup(store: &Store, to: &str) -> Result<Value, Refusal> {
    if !std::path::Path::new(to).is_absolute() {
        let message = "\"to\" has to be the whole path, from the root on, of the new directory".to_owned();
        return Err(Refusal::new("request", message));
    }
    #[cfg(any(feature = "sled", feature = "fjall"))]
    {
        let made = store.backup(to)?;
        Ok(json!({
            "engine": made.engine.name(),
            "at_ms": made.at_ms,
            "records": made.records,
            "files": made.files,
            "bytes": made.bytes,
        }))
    }
    #[cfg(not(any(feature = "sled", feature = "fjall")))]
    {
        let _memory_only = store;
        Err(Refusal::new("state", "this program was built without an engine that keeps files".to_owned()))
    }
}

/// What is known without reading records.
fn status(store: &Store) -> Result<Value, Refusal> {
    let tables = store
        .outline()
        .into_iter()
        .map(|(table, active, floor)| json!({ "table": table, "active": active, "floor": floor }));
    let tables: Vec<Value> = tables.collect();
    let migrations = store.migrations()?;
    Ok(json!({
        "bytes_on_disk": store.bytes_on_disk()?,
        "sweeping": store.is_sweeping(),
        "tables": tables,
        "migrations": migrations.iter().map(migration_json).collect::<Vec<_>>(),
    }))
}

fn migration_json(status: &Status) -> Value {
    let tables = status.tables.iter().map(|table| {
        json!({
            "table": table.table,
            "from": table.from,
            "to": table.to,
            "metadata_only": table.metadata_only,
            "copied": table.counts.copied,
            "brought_forward": table.counts.brought_forward,
            "quarantined": table.counts.quarantined,
            "backlog": table.backlog,
        })
    });
    let (backfill, waits) = match &status.backfill {
        Backfill::Running => ("running", None),
        Backfill::Paused => ("paused", None),
        Backfill::Stopped => ("stopped", None),
        Backfill::Waiting(waiting) => ("waiting", Some(waiting.to_string())),
    };
    json!({
        "name": status.name,
        "why": status.why,
        "by": status.by,
        "phase": status.phase.to_string(),
        "one_way": status.one_way,
        "fenced": status.fenced,
        "paused": backfill == "paused",
        "backfill": backfill,
        "waits": waits,
        "fraction": status.fraction,
        "records_per_s": status.records_per_s,
        "eta_s": status.eta.map(|eta| eta.as_secs_f64()),
        "tables": tables.collect::<Vec<_>>(),
    })
}

/// The last entries, oldest first.
fn ledger(store: &Store) -> Result<Value, Refusal> {
    let entries = store.ledger()?;
    let entries = entries.iter().skip(entries.len().saturating_sub(ENTRIES_MAX)).map(|entry| {
        let counts = entry.counts.iter().map(|(name, n)| (name.clone(), Value::from(*n)));
        json!({
            "seq": entry.seq,
            "at_ms": entry.at_ms,
            "what": entry.what,
            "subject": entry.subject,
            "why": entry.why,
            "by": entry.by,
            "duration_us": entry.duration_us,
            "counts": counts.collect::<serde_json::Map<_, _>>(),
        })
    });
    Ok(json!({ "entries": entries.collect::<Vec<_>>() }))
}
