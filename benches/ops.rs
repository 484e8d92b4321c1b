//! What an operation costs, beside the raw engine doing the same work with the same codec.
//!
//! `cargo bench --bench ops` runs criterion's groups and then prints paired ratios: both sides in turn, many
//! rounds, the median of the rounds' ratios with its quartiles; with `--features fjall` beside that engine too. On a shared machine the paired ratios are the
//! figures to quote.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use exuvia::{Budget, CastError, Migration, Origin, Store, Table, Version};
use serde::{Deserialize, Serialize};

const RECORDS: u64 = 100_000;
const BACKFILL_RECORDS: u64 = 20_000;
const ROUNDS: usize = 41;
const OPS_PER_ROUND: usize = 20_000;
const OPEN_RECORDS: u64 = 1_000_000;
const OPEN_ROUNDS: usize = 9;

/// About 150 bytes.
#[derive(Serialize, Deserialize, Clone)]
struct ItemV1 {
    name: String,
    feet: f64,
    note: String,
    tags: Vec<u32>,
}

#[derive(Serialize, Deserialize, Clone)]
struct ItemV2 {
    name: String,
    metres: f64,
    note: String,
    tags: Vec<u32>,
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
        Ok(ItemV2 { name: old.name, metres: old.feet * 0.25, note: old.note, tags: old.tags, checked: false })
    }

    fn downcast(&self, _last: Option<ItemV1>) -> Result<ItemV1, CastError> {
        let (name, note, tags) = (self.name.clone(), self.note.clone(), self.tags.clone());
        Ok(ItemV1 { name, feet: self.metres * 4.0, note, tags })
    }
}

fn item(id: u64) -> ItemV1 {
    let tags = (0..4).map(|n| (id as u32).wrapping_mul(31).wrapping_add(n)).collect();
    ItemV1 { name: format!("item number {id}"), feet: id as f64, note: "n".repeat(100), tags }
}

/// Keys in an order that no cache foresees, the same for both sides.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % count
    })
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exuvia-bench-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn raw(path: &Path, count: u64) -> (sled::Db, sled::Tree) {
    // As the engine sets it, but that here sled itself flushes.
    let config = sled::Config::new().path(path).cache_capacity(256 << 20).segment_size(4 << 20);
    let config = config.mode(sled::Mode::HighThroughput).flush_every_ms(Some(500));
    // A thread of sled's may hold the lock of a database that was just closed.
    let db = (0..1000)
        .find_map(|_| config.open().map_err(|_| std::thread::sleep(Duration::from_millis(1))).ok())
        .expect("raw engine opens");
    let tree = db.open_tree("items").expect("tree opens");
    for id in 0..count {
        tree.insert(id.to_be_bytes(), encode(&item(id))).expect("raw put");
    }
    (db, tree)
}

/// The same codec as the store's, limits included.
fn encode<V: Version>(record: &V) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(192);
    record.encode(&mut bytes).expect("encodes");
    bytes
}

fn decode<V: Version>(bytes: &[u8]) -> V {
    V::decode(bytes).expect("decodes")
}

fn exuvia(path: &Path, count: u64) -> (Store, Table<u64, ItemV1>, Table<u64, ItemV2>) {
    let store = Store::open(path).expect("store opens");
    let old: Table<u64, ItemV1> = store.table("items").expect("table opens");
    for id in 0..count {
        old.put(&id, &item(id)).expect("put");
    }
    let new = store.table("items").expect("table opens");
    (store, old, new)
}

fn raw_backfill(from: &sled::Tree, to: &sled::Tree) {
    for entry in from.iter() {
        let (key, value) = entry.expect("raw scan");
        let new = encode(&ItemV2::upcast(decode(&value)).expect("upcast"));
        to.compare_and_swap(key, None::<&[u8]>, Some(new)).expect("raw insert").expect("absent");
    }
}

fn backfill(store: &Store, new: &Table<u64, ItemV2>, name: &str) -> Migration {
    let migration = store.migration(name).table(new).paused().begin().expect("begins");
    migration.set_budget(Budget::unlimited()).expect("budget");
    migration.unpause().expect("runs");
    migration.wait().expect("completes");
    migration
}

fn groups(criterion: &mut Criterion) {
    let (raw_dir, our_dir) = (Scratch::new("raw"), Scratch::new("exuvia"));
    let (_db, tree) = raw(&raw_dir.0, RECORDS);
    let (store, old, new) = exuvia(&our_dir.0, RECORDS);
    let mut keys = shuffled(RECORDS);

    let mut group = criterion.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    group.bench_function("raw engine and decode", |b| {
        b.iter(|| raw_get(&tree, keys.next().unwrap_or(0)));
    });
    group.bench_function("exuvia", |b| b.iter(|| old.get(&keys.next().unwrap_or(0)).expect("get")));
    group.bench_function("exuvia, lazy upcast", |b| {
        b.iter(|| new.get(&keys.next().unwrap_or(0)).expect("get"));
    });
    group.finish();

    let mut group = criterion.benchmark_group("put");
    group.throughput(Throughput::Elements(1));
    let record = item(7);
    group.bench_function("encode and raw engine", |b| {
        b.iter(|| raw_put(&tree, keys.next().unwrap_or(0), &record));
    });
    group.bench_function("exuvia", |b| b.iter(|| old.put(&keys.next().unwrap_or(0), &record).expect("put")));
    group.finish();

    let mut group = criterion.benchmark_group("scan of 10 000 records");
    group.throughput(Throughput::Elements(10_000)).sample_size(20);
    group.bench_function("raw engine and decode", |b| b.iter(|| raw_scan(&tree)));
    group.bench_function("exuvia", |b| b.iter(|| our_scan(&old)));
    group.finish();

    drop((store, old, new));
    let mut group = criterion.benchmark_group("backfill of 20 000 records");
    group.throughput(Throughput::Elements(BACKFILL_RECORDS)).sample_size(10);
    group.bench_function("bare loop on the raw engine", |b| {
        b.iter_batched(
            || {
                let dir = Scratch::new("raw-backfill");
                let (db, tree) = raw(&dir.0, BACKFILL_RECORDS);
                let to = db.open_tree("new").expect("tree opens");
                (dir, db, tree, to)
            },
            |(dir, db, tree, to)| {
                raw_backfill(&tree, &to);
                (dir, db, tree, to)
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("exuvia, no budget", |b| {
        b.iter_batched(
            || {
                let dir = Scratch::new("exuvia-backfill");
                let opened = exuvia(&dir.0, BACKFILL_RECORDS);
                (dir, opened)
            },
            |(dir, opened)| {
                backfill(&opened.0, &opened.2, "bench");
                (opened, dir)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn raw_get(tree: &sled::Tree, id: u64) -> Option<ItemV1> {
    tree.get(id.to_be_bytes()).expect("raw get").map(|bytes| decode(&bytes))
}

fn raw_put(tree: &sled::Tree, id: u64, record: &ItemV1) {
    tree.insert(id.to_be_bytes(), encode(record)).expect("raw put");
}

fn raw_scan(tree: &sled::Tree) {
    for entry in tree.range(1000u64.to_be_bytes()..).take(10_000) {
        black_box(decode::<ItemV1>(&entry.expect("raw scan").1));
    }
}

fn our_scan(table: &Table<u64, ItemV1>) {
    for entry in table.scan(1000..).take(10_000) {
        black_box(entry.expect("scan"));
    }
}

/// Median and quartiles of the ratio of two jobs that are run in turn.
fn paired(name: &str, ours: impl FnMut(), raws: impl FnMut()) {
    paired_rounds(name, (ROUNDS, OPS_PER_ROUND), ours, raws);
}

fn paired_rounds(name: &str, (rounds, ops): (usize, usize), mut ours: impl FnMut(), mut raws: impl FnMut()) {
    let timed = |job: &mut dyn FnMut()| {
        let start = Instant::now();
        job();
        start.elapsed()
    };
    let mut ratios = Vec::new();
    let (mut our_times, mut raw_times) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // The order alternates, so that neither always runs in the other's wake.
        let (our_time, raw_time) = if round % 2 == 0 {
            let our_time = timed(&mut ours);
            (our_time, timed(&mut raws))
        } else {
            let raw_time = timed(&mut raws);
            (timed(&mut ours), raw_time)
        };
        ratios.push(our_time.as_secs_f64() / raw_time.as_secs_f64());
        our_times.push(our_time);
        raw_times.push(raw_time);
    }
    ratios.sort_by(f64::total_cmp);
    our_times.sort();
    raw_times.sort();
    let per_op = |time: Duration| time.as_nanos() / ops as u128;
    let at = |share: usize| ratios.get(rounds * share / 4).copied().unwrap_or(f64::NAN);
    println!(
        "paired {name}: ratio {:.3} (quartiles {:.3} to {:.3}); exuvia {} ns, raw {} ns an operation",
        at(2),
        at(1),
        at(3),
        per_op(our_times[rounds / 2]),
        per_op(raw_times[rounds / 2]),
    );
}

#[cfg(feature = "fjall")]
mod on_fjall {
    //! The same ratios beside raw fjall, set as the engine sets it.

    use std::hint::black_box;
    use std::path::Path;

    use exuvia::engine::{EngineKind, FjallOptions};
    use exuvia::{Store, Table, Version};

    use super::{
        ItemV1, ItemV2, OPEN_RECORDS, OPEN_ROUNDS, OPS_PER_ROUND, RECORDS, Scratch, decode, encode, item,
        our_scan, paired, paired_rounds, shuffled,
    };

    fn database(path: &Path) -> (fjall::Database, fjall::Keyspace) {
        let builder = fjall::Database::builder(path).cache_size(256 << 20).worker_threads(1);
        let db = builder.max_journaling_size(64 << 20).open().expect("raw engine opens");
        let bytes = FjallOptions::MEMTABLE_BYTES;
        let options = || fjall::KeyspaceCreateOptions::default().max_memtable_size(bytes);
        let keyspace = db.keyspace("items", options).expect("keyspace opens");
        (db, keyspace)
    }

    fn raw(path: &Path, count: u64) -> (fjall::Database, fjall::Keyspace) {
        let (db, keyspace) = database(path);
        for id in 0..count {
            keyspace.insert(id.to_be_bytes(), encode(&item(id))).expect("raw put");
        }
        (db, keyspace)
    }

    fn raw_get(keyspace: &fjall::Keyspace, id: u64) -> Option<ItemV1> {
        keyspace.get(id.to_be_bytes()).expect("raw get").map(|bytes| decode(&bytes))
    }

    fn raw_scan(keyspace: &fjall::Keyspace) {
        for entry in keyspace.range(1000u64.to_be_bytes()..).take(10_000) {
            black_box(decode::<ItemV1>(&entry.into_inner().expect("raw scan").1));
        }
    }

    fn store(path: &Path) -> (Store, Table<u64, ItemV1>) {
        let store = Store::options().engine(EngineKind::Fjall).open(path).expect("store opens");
        let table = store.table("items").expect("table opens");
        (store, table)
    }

    pub fn ratios() {
        let (raw_dir, our_dir) = (Scratch::new("raw-fjall"), Scratch::new("exuvia-fjall"));
        let (_db, keyspace) = raw(&raw_dir.0, RECORDS);
        let (store, old) = store(&our_dir.0);
        for id in 0..RECORDS {
            old.put(&id, &item(id)).expect("put");
        }
        let new: Table<u64, ItemV2> = store.table("items").expect("table opens");
        let keys: Vec<u64> = shuffled(RECORDS).take(OPS_PER_ROUND).collect();
        let record = item(7);
        let raw_gets = || keys.iter().for_each(|id| drop(black_box(raw_get(&keyspace, *id))));
        paired("fjall: get", || keys.iter().for_each(|id| drop(black_box(old.get(id)))), raw_gets);
        paired(
            "fjall: get with lazy upcast",
            || keys.iter().for_each(|id| drop(black_box(new.get(id)))),
            || keys.iter().for_each(|id| drop(black_box(raw_get(&keyspace, *id).map(ItemV2::upcast)))),
        );
        let raw_put = |id: &u64| keyspace.insert(id.to_be_bytes(), encode(&record)).expect("raw put");
        paired(
            "fjall: put",
            || keys.iter().for_each(|id| old.put(id, &record).expect("put")),
            || keys.iter().for_each(raw_put),
        );
        let twice = |scan: &dyn Fn()| (0..2).for_each(|_| scan());
        paired("fjall: scan (a record)", || twice(&|| our_scan(&old)), || twice(&|| raw_scan(&keyspace)));
    }

    pub fn transactions() {
        let (raw_dir, our_dir) = (Scratch::new("raw-fjall-tx"), Scratch::new("exuvia-fjall-tx"));
        let (_db, keyspace) = raw(&raw_dir.0, RECORDS);
        let (store, table) = store(&our_dir.0);
        (0..RECORDS).for_each(|id| table.put(&id, &item(id)).expect("put"));
        let raw_put = |id: u64, record: &ItemV1| {
            keyspace.insert(id.to_be_bytes(), encode(record)).expect("raw put");
        };
        super::transactions("fjall: transaction of two reads and two writes", &store, &table, |a, b| {
            let read = raw_get(&keyspace, a).zip(raw_get(&keyspace, b)).expect("both are there");
            raw_put(a, &read.1);
            raw_put(b, &read.0);
        });
    }

    pub fn opens() {
        let dir = Scratch::new("open-fjall");
        let opened = store(&dir.0);
        (0..OPEN_RECORDS).for_each(|id| opened.1.put(&id, &item(id)).expect("put"));
        drop(opened);
        let files = dir.0.join("fjall");
        paired_rounds(
            "fjall: open with 1 million records",
            (OPEN_ROUNDS, 1),
            || drop(store(&dir.0)),
            || drop(database(&files)),
        );
    }
}

/// Open and close, with so many records. Both sides open the same files in turn, with the same settings: how much of
/// its log an engine has to read depends on how far it had come when the store was closed.
fn opens() {
    let dir = Scratch::new("open");
    drop(exuvia(&dir.0, OPEN_RECORDS));
    let files = dir.0.join("sled");
    paired_rounds(
        "open with 1 million records",
        (OPEN_ROUNDS, 1),
        || drop(exuvia(&dir.0, 0)),
        || drop(raw(&files, 0)),
    );
}

fn ratios() {
    let (raw_dir, our_dir) = (Scratch::new("raw"), Scratch::new("exuvia"));
    let (_db, tree) = raw(&raw_dir.0, RECORDS);
    let (_store, old, new) = exuvia(&our_dir.0, RECORDS);
    let keys: Vec<u64> = shuffled(RECORDS).take(OPS_PER_ROUND).collect();
    let record = item(7);
    let raw_gets = || keys.iter().for_each(|id| drop(black_box(raw_get(&tree, *id))));
    paired("get", || keys.iter().for_each(|id| drop(black_box(old.get(id)))), raw_gets);
    let raw_upcast = |id: &u64| raw_get(&tree, *id).map(ItemV2::upcast);
    paired(
        "get with lazy upcast",
        || keys.iter().for_each(|id| drop(black_box(new.get(id)))),
        || keys.iter().for_each(|id| drop(black_box(raw_upcast(id)))),
    );
    paired(
        "put",
        || keys.iter().for_each(|id| old.put(id, &record).expect("put")),
        || keys.iter().for_each(|id| raw_put(&tree, *id, &record)),
    );
    // Two scans of 10 000 records make a round's operations.
    let twice = |scan: &dyn Fn()| (0..2).for_each(|_| scan());
    paired("scan (a record)", || twice(&|| our_scan(&old)), || twice(&|| raw_scan(&tree)));
}

/// A transaction of two reads and two writes, beside the same four operations on the raw engine.
fn transactions(name: &str, store: &Store, table: &Table<u64, ItemV1>, raw: impl Fn(u64, u64)) {
    let keys: Vec<u64> = shuffled(RECORDS).take(OPS_PER_ROUND / 2).collect();
    let pairs = || keys.chunks_exact(2).map(|pair| (pair[0], pair[1])).filter(|(a, b)| a != b);
    let ours = |(a, b): (u64, u64)| {
        let done = store.transaction::<_, exuvia::Error>(|tx| {
            let read = tx.get(table, &a)?.zip(tx.get(table, &b)?).expect("both are there");
            tx.put(table, &a, &read.1)?;
            tx.put(table, &b, &read.0)
        });
        done.expect("transaction");
    };
    let rounds = (ROUNDS, OPS_PER_ROUND / 4);
    paired_rounds(name, rounds, || pairs().for_each(ours), || pairs().for_each(|(a, b)| raw(a, b)));
}

fn transactions_on_sled() {
    let (raw_dir, our_dir) = (Scratch::new("raw-tx"), Scratch::new("exuvia-tx"));
    let (_db, tree) = raw(&raw_dir.0, RECORDS);
    let (store, table, _) = exuvia(&our_dir.0, RECORDS);
    transactions("transaction of two reads and two writes", &store, &table, |a, b| {
        let read = raw_get(&tree, a).zip(raw_get(&tree, b)).expect("both are there");
        raw_put(&tree, a, &read.1);
        raw_put(&tree, b, &read.0);
    });
}

fn main() {
    // The transactions alone: `cargo bench --bench ops -- transactions`.
    // And the opens: `-- opens`.
    if std::env::args().any(|arg| arg == "opens") {
        opens();
        #[cfg(feature = "fjall")]
        on_fjall::opens();
        return;
    }
    if std::env::args().any(|arg| arg == "transactions") {
        transactions_on_sled();
        #[cfg(feature = "fjall")]
        on_fjall::transactions();
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    groups(&mut criterion);
    criterion.final_summary();
    // `cargo test --benches` and criterion's list and test modes have no use for the ratios.
    if !std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        ratios();
        opens();
        transactions_on_sled();
        #[cfg(feature = "fjall")]
        {
            on_fjall::ratios();
            on_fjall::transactions();
            on_fjall::opens();
        }
    }
}
