//! Import of an export: each table whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::{Budget, Error, Store};
use serde_json::json;

use crate::failure::Failure;

/// A record of 16 MiB as the longest JSON that it can be.
const LINE_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The store's directory; it is made if it is not there
    path: PathBuf,
    /// The lines that `exuvia export` has written; `-` for standard input, which is not checked before the tables are made
    file: PathBuf,
    /// The engine of a store that is made: sled or fjall [default: sled]
    #[arg(long, value_name = "ENGINE", value_parser = crate::engine)]
    engine: Option<EngineKind>,
    /// Check every line and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Takes the file into the store; answers how many records of each table.
pub(crate) fn run(args: &ImportArgs) -> Result<String, Failure> {
    let streamed = args.file == Path::new("-");
    let mut counts = BTreeMap::new();
    if args.dry_run || !streamed {
        // Nothing is made for a file that cannot be taken.
        let trial = if args.path.join("EXUVIA").exists() {
            options().read_only(true).open(&args.path).map_err(|e| Failure::opening(&args.path, e))?
        } else {
            options().open_in(Arc::new(MemoryEngine::new()))?
        };
        counts = pass(&trial, &args.file, true)?;
        trial.close()?;
    }
    if !args.dry_run {
        let options = args.engine.map_or_else(options, |engine| options().engine(engine));
        let store = options.open(&args.path).map_err(|e| Failure::opening(&args.path, e))?;
        counts = pass(&store, &args.file, false)?;
        store.close()?;
    }
    Ok(json!({ "imported": !args.dry_run, "records": counts }).to_string())
}

fn options() -> exuvia::Options {
    Store::options().background(false).budget(Budget::unlimited())
}

fn pass(store: &Store, path: &Path, trial: bool) -> Result<BTreeMap<String, u64>, Failure> {
    let mut input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(|e| Failure::input(path, e.to_string()))?))
    };
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
        import.line(text).map_err(|e| refused(path, number, e))?;
    }
    match import.finish() {
        Err(e @ Error::Format { .. }) => Err(refused(path, 1, e)),
        other => Ok(other?),
    }
}

fn refused(path: &Path, line: u64, error: Error) -> Failure {
    match error {
        Error::Format { .. } | Error::Codec { .. } => {
            Failure::line(path, line, format!("{error}; nothing was written"))
        }
        Error::State { .. } => {
            Failure::Refused(format!("{}, line {line}: {error}; nothing was written", path.display()))
        }
        other => other.into(),
    }
}
