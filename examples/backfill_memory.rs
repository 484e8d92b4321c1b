//! Peak memory of a backfill, beside a bare loop on the raw engine that does the same work.
//!
//! `cargo run --release --example backfill_memory -- 1000000 5000000`
//!
//! For each number of records a child process loads a store and another one opens it and migrates it, so that the
//! load's memory is not counted. What the raw engine takes for itself (its cache, and its index of pages, which grows
//! with the data) shows in the bare loop; the difference is what Exuvia adds. `raw` is sled with its own settings,
//! `raw-4mib` sled with the segments that Exuvia's engine gives it. With `--features fjall` there is `exuvia-fjall`, too,
//! whose engine keeps no index of all pages in memory. Linux only: reads /proc/self/status.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use exuvia::{Budget, CastError, Origin, Store, Table, Version};
use serde::{Deserialize, Serialize};

/// The cache that both get: small, so that most of either store does not fit.
const CACHE_BYTES: u64 = 64 << 20;

#[cfg(not(feature = "fjall"))]
const KINDS: [&str; 3] = ["raw", "raw-4mib", "exuvia"];
#[cfg(feature = "fjall")]
const KINDS: [&str; 4] = ["raw", "raw-4mib", "exuvia", "exuvia-fjall"];

#[derive(Serialize, Deserialize)]
struct ItemV1 {
    name: String,
    feet: i64,
    note: String,
}

#[derive(Serialize, Deserialize)]
struct ItemV2 {
    name: String,
    millimetres: i64,
    note: String,
    checked: bool,
}

impl Version for ItemV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for ItemV2 {
    const VERSION: u32 = 2;
    type Previous = ItemV1;

    fn upcast(old: ItemV1) -> Result<Self, CastError> {
        let millimetres = old.feet * 3048 / 10;
        Ok(ItemV2 { name: old.name, millimetres, note: old.note, checked: false })
    }

    fn downcast(&self, _last: Option<ItemV1>) -> Result<ItemV1, CastError> {
        let feet = self.millimetres * 10 / 3048;
        Ok(ItemV1 { name: self.name.clone(), feet, note: self.note.clone() })
    }
}

/// About 150 bytes.
fn item(id: u64) -> ItemV1 {
    ItemV1 { name: format!("item number {id}"), feet: (id % 30_000) as i64 * 10, note: "n".repeat(115) }
}

type AnyError = Box<dyn std::error::Error>;

fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, AnyError> {
    Ok(bincode::serde::encode_to_vec(record, bincode::config::standard())?)
}

fn raw(kind: &str, path: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(500));
    let config = config.mode(sled::Mode::HighThroughput);
    if kind == "raw-4mib" { config.segment_size(4 << 20).open() } else { config.open() }
}

fn load(kind: &str, path: &Path, records: u64) -> Result<(), AnyError> {
    if kind.starts_with("raw") {
        let tree = raw(kind, path)?.open_tree("old")?;
        for id in 0..records {
            tree.insert(id.to_be_bytes(), encode(&item(id))?)?;
        }
        tree.flush()?;
        return Ok(());
    }
    let store = open(kind, path)?;
    let table: Table<u64, ItemV1> = store.table("items")?;
    for id in 0..records {
        table.put(&id, &item(id))?;
    }
    drop(table);
    Ok(store.close()?)
}

fn migrate(kind: &str, path: &Path) -> Result<(), AnyError> {
    let started = Instant::now();
    let copied;
    let before;
    if kind.starts_with("raw") {
        let db = raw(kind, path)?;
        let (old, new) = (db.open_tree("old")?, db.open_tree("new")?);
        before = memory("VmRSS:")?;
        let mut count = 0u64;
        for entry in old.iter() {
            let (key, value) = entry?;
            let (record, _): (ItemV1, _) =
                bincode::serde::decode_from_slice(&value, bincode::config::standard())?;
            let record = encode(&ItemV2::upcast(record)?)?;
            drop(new.compare_and_swap(key, None::<&[u8]>, Some(record))?);
            count += 1;
        }
        copied = count;
    } else {
        let store = open(kind, path)?;
        let table: Table<u64, ItemV2> = store.table("items")?;
        before = memory("VmRSS:")?;
        let migration = store.plan("metres").table(&table).paused().begin()?;
        migration.set_budget(Budget::unlimited())?;
        migration.unpause()?;
        let status = migration.wait()?;
        copied = status.tables.iter().map(|table| table.counts.copied).sum();
    }
    let peak = memory("VmHWM:")?;
    let rate = copied as f64 / started.elapsed().as_secs_f64();
    println!(
        "{kind:>12}  {copied:>9} records  {rate:>8.0} records/s  opened {:>6.1} MiB  peak {:>6.1} MiB",
        before as f64 / 1024.0,
        peak as f64 / 1024.0
    );
    Ok(())
}

fn open(kind: &str, path: &Path) -> exuvia::Result<Store> {
    let options = Store::options().cache_bytes(CACHE_BYTES);
    #[cfg(feature = "fjall")]
    if kind == "exuvia-fjall" {
        return options.engine(exuvia::engine::EngineKind::Fjall).open(path);
    }
    let _ = kind;
    options.open(path)
}

/// A line of /proc/self/status, in KiB.
fn memory(name: &str) -> Result<u64, AnyError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", kind, path, records] => return load(kind, Path::new(path), records.parse()?),
        ["migrate", kind, path] => return migrate(kind, Path::new(path)),
        _ => {}
    }
    let counts = if words.is_empty() { vec!["1000000", "5000000"] } else { words };
    println!("engine cache: {} MiB", CACHE_BYTES >> 20);
    for records in counts {
        for kind in KINDS {
            let path: PathBuf = std::env::temp_dir().join(format!("exuvia-memory-{}", std::process::id()));
            let path_text = path.to_string_lossy().into_owned();
            for arguments in [vec!["load", kind, &path_text, records], vec!["migrate", kind, &path_text]] {
                let status = Command::new(std::env::current_exe()?).args(&arguments).status()?;
                if !status.success() {
                    return Err(format!("{} of {kind} failed", arguments[0]).into());
                }
            }
            std::fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}
