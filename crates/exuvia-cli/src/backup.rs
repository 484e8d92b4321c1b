//! Backups, the way back from them, and what can be had of a store that has no whole one.

use std::path::{Path, PathBuf};

use clap::Args;
use exuvia::engine::EngineKind;
use exuvia::tools::backup::Backup;
use exuvia::tools::salvage::Lost;
use exuvia::{Budget, Store};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::inspect::{Answer, utc};
use crate::live;
use crate::report::{grouped, size};

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The store's directory; with --check, that of a backup
    path: PathBuf,
    /// A new directory
    #[arg(required_unless_present = "check")]
    destination: Option<PathBuf>,
    /// Compare every file of a backup with its checksum; changes nothing
    #[arg(long, conflicts_with_all = ["destination", "socket"])]
    check: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The control socket of the program that has the store open [default: control.sock in the store's directory]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup's directory
    backup: PathBuf,
    /// A new directory for the store
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SalvageArgs {
    /// The damaged store's directory; it is only read
    source: PathBuf,
    /// A new directory
    destination: PathBuf,
    /// The engine of the new store: sled or fjall [default: that of the damaged one]
    #[arg(long, value_name = "ENGINE", value_parser = crate::engine)]
    engine: Option<EngineKind>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn backup(args: &BackupArgs) -> Result<Answer, Failure> {
    let Some(destination) = &args.destination else {
        return check(&args.path, args.json);
    };
    let live = || -> Result<Value, Failure> {
        let to = std::path::absolute(destination)
            .map_err(|e| Failure::input(destination, format!("cannot be named: {e}")))?;
        let Some(to) = to.to_str() else {
            return Err(Failure::input(
                destination,
                "its name is no text, so it cannot be told to another program",
            ));
        };
        live::ask_patiently(&args.path, args.socket.as_deref(), &json!({ "verb": "backup", "to": to }))
    };
    let made = if args.socket.is_some() {
        live()?
    } else {
        match offline(&args.path, destination) {
            Err(Failure::Locked(path)) if path == args.path => live()?,
            made => backup_json(&made?),
        }
    };
    let text = if args.json {
        made.to_string()
    } else {
        let number = |name: &str| made[name].as_u64().unwrap_or_default();
        let (records, files, bytes) =
            (grouped(number("records")), grouped(number("files")), size(number("bytes")));
        format!("{records} records backed up and verified, in {files} files of {bytes}")
    };
    Ok(Answer { text, failure: None })
}

fn offline(path: &Path, destination: &Path) -> Result<Backup, Failure> {
    let options = Store::options().read_only(true).budget(Budget::unlimited());
    let store = options.open(path).map_err(|e| Failure::opening(path, e))?;
    let made = store.backup(destination).map_err(|e| match e {
        exuvia::Error::Path { .. } => Failure::opening(destination, e),
        other => other.into(),
    })?;
    store.close()?;
    Ok(made)
}

fn check(path: &Path, as_json: bool) -> Result<Answer, Failure> {
    let backup = Store::check_backup(path).map_err(|e| Failure::opening(path, e))?;
    let failure = backup.damage.first().map(|first| {
        Failure::Verification(format!(
            "{}: {} files of the backup differ; the first: {first}; `exuvia salvage` makes a store of what can be read of it",
            path.display(),
            backup.damage.len()
        ))
    });
    let text = if as_json {
        backup_json(&backup).to_string()
    } else {
        let Backup { engine, at_ms, records, files, bytes, .. } = &backup;
        let (at, records) = (utc(*at_ms), grouped(*records));
        let mut text = backup.damage.join("\n");
        if failure.is_none() {
            text = format!(
                "as it was made: {records} records of {at}, in the engine {}, {} files of {}",
                engine.name(),
                grouped(*files),
                size(*bytes)
            );
        }
        text
    };
    Ok(Answer { text, failure })
}

fn backup_json(backup: &Backup) -> Value {
    json!({
        "engine": backup.engine.name(),
        "at_ms": backup.at_ms,
        "records": backup.records,
        "files": backup.files,
        "bytes": backup.bytes,
        "damage": backup.damage,
    })
}

pub(crate) fn restore(args: &RestoreArgs) -> Result<String, Failure> {
    let restored = Store::restore(&args.backup, &args.path).map_err(|e| match &e {
        exuvia::Error::Path { path, .. } => Failure::opening(&path.clone(), e),
        _ => Failure::opening(&args.backup, e),
    })?;
    if args.json {
        return Ok(backup_json(&restored).to_string());
    }
    Ok(format!(
        "{} files restored and compared: {} records",
        grouped(restored.files),
        grouped(restored.records)
    ))
}

pub(crate) fn salvage(args: &SalvageArgs) -> Result<Answer, Failure> {
    let salvage = Store::salvage(&args.source, &args.destination, args.engine).map_err(|e| match &e {
        exuvia::Error::Path { path, .. } => Failure::opening(&path.clone(), e),
        exuvia::Error::Engine(_) => Failure::Store(format!(
            "{}: the engine cannot open even a copy of its files, so nothing can be read: {e}",
            args.source.display()
        )),
        _ => Failure::opening(&args.source, e),
    })?;
    let failure = (!salvage.is_complete()).then(|| {
        Failure::Verification(format!(
            "{}: {} things were lost; what could be read is in {}",
            args.source.display(),
            grouped(salvage.lost_count),
            args.destination.display()
        ))
    });
    let text = if args.json {
        let lost = salvage.lost.iter().map(|lost| {
            json!({ "table": lost.table, "key": lost.key.as_ref().map(|_| key(lost)), "reason": lost.reason })
        });
        json!({
            "engine": salvage.engine.name(),
            "tables": salvage.tables,
            "records": salvage.records,
            "lost_count": salvage.lost_count,
            "lost": lost.collect::<Vec<_>>(),
        })
        .to_string()
    } else {
        let mut lines: Vec<String> = salvage.lost.iter().map(line).collect();
        let left_out = salvage.lost_count - salvage.lost.len() as u64;
        if left_out > 0 {
            lines.push(format!("... and {} more", grouped(left_out)));
        }
        lines.push(format!(
            "{} records of {} tables copied, in the engine {}; {} lost",
            grouped(salvage.records),
            salvage.tables.len(),
            salvage.engine.name(),
            grouped(salvage.lost_count)
        ));
        lines.join("\n")
    };
    Ok(Answer { text, failure })
}

/// As `get` and `scan` show it; in hexadecimal where the type of keys is not known, or the key is not of it.
fn key(lost: &Lost) -> Value {
    let bytes = lost.key.as_deref().unwrap_or_default();
    let shown = lost.key_type.as_ref().and_then(|of| exuvia::json::decode_key(of, bytes).ok());
    shown.unwrap_or_else(|| {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "hex": digits })
    })
}

fn line(lost: &Lost) -> String {
    let table = if lost.table.is_empty() { "store".to_owned() } else { format!("table {}", lost.table) };
    match &lost.key {
        Some(_) => format!("{table}, key {}: {}", key(lost), lost.reason),
        None => format!("{table}: {}", lost.reason),
    }
}
