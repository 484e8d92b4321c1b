//! Import of an export: all lines are checked before the first one is written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use exuvia::engine::MemoryEngine;
use exuvia::{Error, Store};
use serde_json::json;

use crate::failure::Failure;

/// A record of 16 MiB as the longest JSON that it can be.
const LINE_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The store's directory; it is made if it is not there
    path: PathBuf,
    /// The lines that `exuvia export` has written
    file: PathBuf,
    /// Check every line and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Takes the file into the store; answers how many records of each table.
pub(crate) fn run(args: &ImportArgs) -> Result<String, Failure> {
    let there = args.path.join("EXUVIA").exists();
    let trial = if there {
        open(&args.path)?
    } else {
        // Nothing is made for a file that cannot be taken.
        Store::options().background(false).open_in(Arc::new(MemoryEngine::new()))?
    };
    let mut counts = pass(&trial, &args.file, true)?;
    trial.close()?;
    if !args.dry_run {
        let store = open(&args.path)?;
        counts = pass(&store, &args.file, false)?;
        store.close()?;
    }
    Ok(json!({ "imported": !args.dry_run, "records": counts }).to_string())
}

fn open(path: &Path) -> Result<Store, Failure> {
    Store::options().background(false).open(path).map_err(|e| Failure::opening(path, e))
}

fn pass(store: &Store, path: &Path, trial: bool) -> Result<BTreeMap<String, u64>, Failure> {
    let file = File::open(path).map_err(|e| Failure::input(path, e.to_string()))?;
    let mut input = BufReader::new(file);
    let mut import = store.import(trial);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
        if read.map_err(|e| Failure::line(path, number, e.to_string()))? == 0 {
            break;
        }
        if line.len() as u64 > LINE_BYTES_MAX {
            return Err(Failure::line(path, number, format!("it is longer than {LINE_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(&line);
        let text = text.map_err(|e| Failure::line(path, number, format!("it is not text: {e}")))?;
        if let Err(error) = import.line(text) {
            let written: u64 = if trial { 0 } else { import.counts().values().sum() };
            return Err(refused(path, number, error, written));
        }
    }
    let counts = import.finish();
    counts.map_err(|e| refused(path, 1, e, 0))
}

fn refused(path: &Path, line: u64, error: Error, written: u64) -> Failure {
    let done = match written {
        0 => "nothing was written".to_owned(),
        written => format!(
            "{written} records before it were written: remove the store, or its tables, and begin again"
        ),
    };
    match error {
        Error::Format { .. } | Error::Codec { .. } => Failure::line(path, line, format!("{error}; {done}")),
        Error::State { .. } => Failure::Refused(format!("{}, line {line}: {error}; {done}", path.display())),
        other => other.into(),
    }
}
