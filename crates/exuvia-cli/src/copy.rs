//! A verified copy of a store whose program is not running, to another place or in its own.

use std::path::PathBuf;

use clap::Args;
use exuvia::engine::EngineKind;
use exuvia::{Budget, Store};
use serde_json::json;

use crate::failure::Failure;
use crate::report::{grouped, size};

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// The store's directory
    source: PathBuf,
    /// A new or empty directory
    destination: PathBuf,
    /// The engine of the copy: sled or fjall [default: that of the store]
    #[arg(long, value_name = "ENGINE", value_parser = engine)]
    engine: Option<EngineKind>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// The store's directory
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn engine(name: &str) -> Result<EngineKind, String> {
    EngineKind::from_name(name).ok_or_else(|| "give sled or fjall".to_owned())
}

pub(crate) fn run(args: &CopyArgs) -> Result<String, Failure> {
    let options = Store::options().read_only(true).budget(Budget::unlimited());
    let store = options.open(&args.source).map_err(|e| Failure::opening(&args.source, e))?;
    let own = store.engine_kind();
    let Some(engine) = args.engine.or(own) else {
        return Err(Failure::input(&args.source, "its engine is not known; name one with --engine"));
    };
    let report = match store.copy_to(&args.destination, engine) {
        Err(e @ (exuvia::Error::Path { .. } | exuvia::Error::Locked { .. })) => {
            return Err(Failure::opening(&args.destination, e));
        }
        other => other?,
    };
    let before = store.bytes_on_disk()?;
    store.close()?;
    // Opened as its program will open it.
    let copy = Store::options().read_only(true).open(&args.destination)?;
    let after = copy.bytes_on_disk()?;
    copy.close()?;
    let engine = engine.name();
    if args.json {
        let records = report.records;
        return Ok(json!({
            "engine": engine, "records": records, "bytes_before": before, "bytes_after": after,
        })
        .to_string());
    }
    let (records, before, after) = (grouped(report.records), size(before), size(after));
    Ok(format!(
        "{records} records copied and verified, in the engine {engine}: {before} before, {after} after"
    ))
}

pub(crate) fn compact(args: &CompactArgs) -> Result<String, Failure> {
    let (before, after) = match Store::compact(&args.path) {
        Err(
            e @ (exuvia::Error::Path { .. } | exuvia::Error::Locked { .. } | exuvia::Error::Format { .. }),
        ) => {
            return Err(Failure::opening(&args.path, e));
        }
        other => other?,
    };
    let (before, after) = (before.bytes_on_disk, after.bytes_on_disk);
    if args.json {
        return Ok(json!({ "bytes_before": before, "bytes_after": after }).to_string());
    }
    Ok(format!("compact and verified: {} before, {} after", size(before), size(after)))
}
