//! Records as JSON, without their Rust types: get, scan, tables, inventory, export.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use clap::Args;
use exuvia::Store;
use exuvia::json::{Row, Rows, key_of_text};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::inspect::table_json;

#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    /// The store's directory
    path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// The store's directory
    path: PathBuf,
    /// The table's name
    table: String,
    /// The version to show records in, one of an open migration [default: that before the migration]
    #[arg(long, value_name = "N")]
    view: Option<u32>,
}

/// Keys are typed by the type that the catalog keeps: text and numbers as they are, bytes as hexadecimal digits, tuples
/// and options as JSON.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    of: TableArgs,
    /// The key: text or a number as it is, bytes as hexadecimal digits, a tuple as a JSON array
    #[arg(allow_hyphen_values = true)]
    key: String,
}

#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    of: TableArgs,
    /// The first key
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    from: Option<String>,
    /// The key to stop before
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    to: Option<String>,
    /// What keys begin with: text, hexadecimal digits, or a JSON array of a tuple's first members
    #[arg(long, value_name = "KEY", conflicts_with_all = ["from", "to"])]
    prefix: Option<String>,
    /// At most so many records
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The store's directory
    path: PathBuf,
    /// Only this table; may be given more than once
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// The version to write records in, one of an open migration [default: that before the migration]
    #[arg(long, value_name = "N")]
    view: Option<u32>,
}

/// Lines on standard output. When the reader has closed the pipe there is no more to do, which is no failure.
struct Lines {
    out: BufWriter<StdoutLock<'static>>,
    closed: bool,
}

impl Lines {
    fn new() -> Self {
        Lines { out: BufWriter::new(io::stdout().lock()), closed: false }
    }

    /// Writes a line; answers whether there is still a reader.
    fn line(&mut self, line: &str) -> Result<bool, Failure> {
        let written = writeln!(self.out, "{line}");
        self.check(written)
    }

    fn check(&mut self, written: io::Result<()>) -> Result<bool, Failure> {
        match written {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.closed = true,
            Err(e) => return Err(Failure::Store(format!("standard output cannot be written: {e}"))),
            Ok(()) => {}
        }
        Ok(!self.closed)
    }

    fn end(mut self) -> Result<(), Failure> {
        if self.closed {
            // What is in the buffer has no reader.
            let _ = self.out.into_parts();
            return Ok(());
        }
        let flushed = self.out.flush();
        self.check(flushed).map(|_| ())
    }
}

fn open(path: &Path) -> Result<Store, Failure> {
    Store::options().read_only(true).open(path).map_err(|e| Failure::opening(path, e))
}

fn rows(args: &TableArgs) -> Result<(Store, Rows), Failure> {
    let store = open(&args.path)?;
    let rows = store.rows(&args.table, args.view)?;
    Ok((store, rows))
}

fn key(rows: &Rows, text: &str) -> Result<Value, Failure> {
    let value = key_of_text(rows.key_type(), text).and_then(|value| {
        exuvia::json::encode_key(rows.key_type(), &value)?;
        Ok(value)
    });
    value.map_err(|e| wrong_key(rows, &e))
}

fn wrong_key(rows: &Rows, error: &exuvia::CastError) -> Failure {
    Failure::Usage(format!("table {} has keys of type {}: {error}", rows.table(), rows.key_type()))
}

fn row_text(row: &Row) -> String {
    // By hand, so that the key comes first.
    format!("{{\"key\":{},\"version\":{},\"record\":{}}}", row.key, row.version, row.record)
}

pub(crate) fn get(args: &GetArgs) -> Result<(), Failure> {
    let (store, rows) = rows(&args.of)?;
    let row = rows.get(&key(&rows, &args.key)?)?;
    drop(rows);
    store.close()?;
    let absent = || Failure::Absent(format!("table {}: there is no record under this key", args.of.table));
    crate::print(&row_text(&row.ok_or_else(absent)?))
}

pub(crate) fn scan(args: &ScanArgs) -> Result<(), Failure> {
    let (store, rows) = rows(&args.of)?;
    let bound = |text: &Option<String>| text.as_ref().map(|text| key(&rows, text)).transpose();
    let (from, to) = (bound(&args.from)?, bound(&args.to)?);
    let mut scan = match &args.prefix {
        Some(prefix) => rows.scan_prefix(prefix).map_err(|e| Failure::Usage(e.to_string()))?,
        None => rows.scan(
            from.as_ref().map_or(Bound::Unbounded, Bound::Included),
            to.as_ref().map_or(Bound::Unbounded, Bound::Excluded),
        )?,
    };
    let mut out = Lines::new();
    for _ in 0..args.limit {
        let next = if args.reverse { scan.next_back() } else { scan.next() };
        match next {
            None => break,
            Some(Ok(row)) => {
                if !out.line(&row_text(&row))? {
                    break;
                }
            }
            Some(Err(e)) => {
                out.end()?;
                return Err(e.into());
            }
        }
    }
    drop((scan, rows));
    store.close()?;
    out.end()
}

pub(crate) fn tables(args: &PathArgs) -> Result<(), Failure> {
    let store = open(&args.path)?;
    let mut out = Lines::new();
    for name in store.tables() {
        let rows = store.rows(&name, None)?;
        let line = json!({
            "table": name,
            "key": rows.key_type().to_string(),
            "version": rows.version(),
            "codec": rows.codec(),
            "shape": rows.shape().map(ToString::to_string),
        });
        out.line(&line.to_string())?;
    }
    store.close()?;
    out.end()
}

pub(crate) fn inventory(args: &PathArgs) -> Result<(), Failure> {
    let store = open(&args.path)?;
    let mut out = Lines::new();
    for table in store.inventory()? {
        out.line(&table_json(&table).to_string())?;
    }
    store.close()?;
    out.end()
}

pub(crate) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let store = open(&args.path)?;
    let mut out = Lines::new();
    for line in store.export(&args.tables, args.view)? {
        match line {
            Ok(line) => {
                if !out.line(&line)? {
                    break;
                }
            }
            Err(e) => {
                out.end()?;
                return Err(e.into());
            }
        }
    }
    store.close()?;
    out.end()
}
