//! What an operation costs, beside the raw engine doing the same work with the same codec.
//!
//! `cargo bench --bench ops` runs criterion's groups and then prints paired ratios: both sides in turn, many
//! rounds, the median of the rounds' ratios with its quartiles; with `--features fjall` beside that engine too. On a
//! shared machine the paired ratios are the figures to quote. `-- ratios`, `-- opens`, `-- transactions` and `-- loads`
//! print those alone. Instructions in place of time: `instructions.rs`.

#[cfg(feature = "fjall")]
#[path = "subjects/fjall.rs"]
#[allow(dead_code, reason = "each bench uses some of it")]
mod fjall_by_hand;
mod subjects;

use std::cell::RefCell;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use exuvia::{Store, Table, Version};

use subjects::paired::{OPS_PER_ROUND, ROUNDS, paired, paired_fresh, paired_rounds};
use subjects::{
    ItemV1, ItemV2, Scratch, backfill, decode, encode, exuvia, item, our_exchange, our_scan, pairs, raw,
    raw_exchange, raw_get, raw_put, raw_scan, shuffled,
};

const RECORDS: u64 = 100_000;
const BACKFILL_RECORDS: u64 = 20_000;
/// Two scans make a round's operations.
const SCAN_RECORDS: usize = OPS_PER_ROUND / 2;
const OPEN_RECORDS: u64 = 1_000_000;
const OPEN_ROUNDS: usize = 21;
const LOAD_ROUNDS: usize = 5;

fn raw_backfill(from: &sled::Tree, to: &sled::Tree) {
    for entry in from.iter() {
        let (key, value) = entry.expect("raw scan");
        let new = encode(&ItemV2::upcast(decode(&value)).expect("upcast"));
        to.compare_and_swap(key, None::<&[u8]>, Some(new)).expect("raw insert").expect("absent");
    }
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
    group.bench_function("raw engine and decode", |b| b.iter(|| raw_scan(&tree, SCAN_RECORDS)));
    group.bench_function("exuvia", |b| b.iter(|| our_scan(&old, SCAN_RECORDS)));
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
                backfill(&opened.0, "bench", &opened.2);
                (opened, dir)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

#[cfg(feature = "fjall")]
mod on_fjall {
    //! The same ratios beside raw fjall.

    use std::hint::black_box;

    use exuvia::{Table, Version};

    use super::fjall_by_hand::{Raw, database, load_store, options, store};
    use super::{
        ItemV1, ItemV2, LOAD_ROUNDS, OPEN_RECORDS, OPEN_ROUNDS, OPS_PER_ROUND, RECORDS, SCAN_RECORDS,
        Scratch, item, our_scan, paired, paired_fresh, shuffled,
    };

    pub fn ratios() {
        let (raw_dir, our_dir) = (Scratch::new("raw-fjall"), Scratch::new("exuvia-fjall"));
        let raw = Raw::load(&raw_dir.0, RECORDS);
        let (store, old) = load_store(&our_dir.0, RECORDS);
        let new: Table<u64, ItemV2> = store.table("items").expect("table opens");
        let keys: Vec<u64> = shuffled(RECORDS).take(OPS_PER_ROUND).collect();
        let record = item(7);
        let raw_gets = || keys.iter().for_each(|id| drop(black_box(raw.get::<ItemV1>(*id))));
        paired("fjall: get", || keys.iter().for_each(|id| drop(black_box(old.get(id)))), raw_gets);
        paired(
            "fjall: get with lazy upcast",
            || keys.iter().for_each(|id| drop(black_box(new.get(id)))),
            || keys.iter().for_each(|id| drop(black_box(raw.get(*id).map(ItemV2::upcast)))),
        );
        let twice = |scan: &dyn Fn()| (0..2).for_each(|_| scan());
        paired(
            "fjall: scan (a record)",
            || twice(&|| our_scan(&old, SCAN_RECORDS)),
            || twice(&|| raw.scan(SCAN_RECORDS)),
        );
        // Last: what it writes is merged while it goes on.
        paired(
            "fjall: put",
            || keys.iter().for_each(|id| old.put(id, &record).expect("put")),
            || keys.iter().for_each(|id| raw.put(*id, &record)),
        );
    }

    pub fn transactions() {
        let (raw_dir, our_dir) = (Scratch::new("raw-fjall-tx"), Scratch::new("exuvia-fjall-tx"));
        let raw = Raw::load(&raw_dir.0, RECORDS);
        let (store, table) = load_store(&our_dir.0, RECORDS);
        let raws = |a, b| raw.exchange(a, b);
        super::transactions("fjall: transaction of two reads and two writes", &store, &table, raws);
    }

    pub fn loads() {
        super::loads("fjall: bulk load against puts (a record)", store);
        let (ingested, inserted) = (Scratch::new("ingest-fjall"), Scratch::new("insert-fjall"));
        let fresh = || {
            for dir in [&ingested, &inserted] {
                let _ = std::fs::remove_dir_all(&dir.0);
            }
        };
        paired_fresh(
            "fjall: raw ingestion against raw puts (a record)",
            (LOAD_ROUNDS, RECORDS as usize),
            fresh,
            || Raw::open(&ingested.0).ingest(RECORDS),
            || {
                let raw = Raw::open(&inserted.0);
                (0..RECORDS).for_each(|id| raw.put(id, &item(id)));
                raw.flush();
            },
        );
    }

    pub fn opens() {
        let dir = Scratch::new("open-fjall");
        let (opened, table) = store(&dir.0);
        (0..OPEN_RECORDS).for_each(|id| table.put(&id, &item(id)).expect("put"));
        drop((opened, table));
        let files = dir.0.join("fjall");
        paired_fresh(
            "fjall: open with 1 million records",
            (OPEN_ROUNDS, 1),
            || (),
            || drop(store(&dir.0)),
            || {
                let db = database(&files);
                for name in db.list_keyspace_names() {
                    black_box(db.keyspace(&name, options).expect("keyspace opens"));
                }
            },
        );
    }
}

/// Open and close, with so many records. Both sides open the same files in turn, with the same settings: how much of
/// its log an engine has to read depends on how far it had come when the store was closed.
fn opens() {
    let dir = Scratch::new("open");
    drop(exuvia(&dir.0, OPEN_RECORDS));
    let files = dir.0.join("sled");
    paired_fresh(
        "open with 1 million records",
        (OPEN_ROUNDS, 1),
        || (),
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
    let twice = |scan: &dyn Fn()| (0..2).for_each(|_| scan());
    paired(
        "scan (a record)",
        || twice(&|| our_scan(&old, SCAN_RECORDS)),
        || twice(&|| raw_scan(&tree, SCAN_RECORDS)),
    );
}

/// A load of sorted records into an empty table, durable at its end, beside as many puts and a flush.
fn loads(name: &str, open: impl Fn(&std::path::Path) -> (Store, Table<u64, ItemV1>)) {
    let (bulk_dir, put_dir) = (Scratch::new("load-bulk"), Scratch::new("load-put"));
    let fresh = |dir: &Scratch| {
        let _ = std::fs::remove_dir_all(&dir.0);
        open(&dir.0)
    };
    // Stores are opened and closed outside of what is timed.
    let (bulk, puts) = (RefCell::new(None), RefCell::new(None));
    paired_fresh(
        name,
        (LOAD_ROUNDS, RECORDS as usize),
        || {
            drop((bulk.take(), puts.take()));
            *bulk.borrow_mut() = Some(fresh(&bulk_dir));
            *puts.borrow_mut() = Some(fresh(&put_dir));
        },
        || {
            let loaded = bulk
                .borrow()
                .as_ref()
                .map(|(_, table)| table.bulk_load((0..RECORDS).map(|id| (id, item(id)))));
            assert_eq!(loaded.expect("it is open").expect("bulk load"), RECORDS);
        },
        || {
            let held = puts.borrow();
            let (store, table) = held.as_ref().expect("it is open");
            (0..RECORDS).for_each(|id| table.put(&id, &item(id)).expect("put"));
            store.flush().expect("flush");
        },
    );
}

/// A transaction of two reads and two writes, beside the same four operations on the raw engine.
fn transactions(name: &str, store: &Store, table: &Table<u64, ItemV1>, raw: impl Fn(u64, u64)) {
    let keys: Vec<u64> = shuffled(RECORDS).take(OPS_PER_ROUND / 2).collect();
    let ours = |(a, b): (u64, u64)| our_exchange(store, table, a, b);
    let rounds = (ROUNDS, OPS_PER_ROUND / 4);
    paired_rounds(name, rounds, || pairs(&keys).for_each(ours), || pairs(&keys).for_each(|(a, b)| raw(a, b)));
}

fn transactions_on_sled() {
    let (raw_dir, our_dir) = (Scratch::new("raw-tx"), Scratch::new("exuvia-tx"));
    let (_db, tree) = raw(&raw_dir.0, RECORDS);
    let (store, table, _) = exuvia(&our_dir.0, RECORDS);
    let raws = |a, b| raw_exchange(&tree, a, b);
    transactions("transaction of two reads and two writes", &store, &table, raws);
}

fn main() {
    // One part alone: `cargo bench --bench ops -- opens`, likewise `ratios`, `transactions` and `loads`.
    let wants = |part: &str| std::env::args().any(|arg| arg == part);
    let parts = ["ratios", "opens", "transactions", "loads"];
    let all = !parts.iter().any(|part| wants(part));
    if all {
        let mut criterion = Criterion::default().configure_from_args();
        groups(&mut criterion);
        criterion.final_summary();
        // `cargo test --benches` and criterion's list and test modes have no use for the ratios.
        if wants("--test") || wants("--list") {
            return;
        }
    }
    if all || wants("ratios") {
        ratios();
        #[cfg(feature = "fjall")]
        on_fjall::ratios();
    }
    if all || wants("opens") {
        opens();
        #[cfg(feature = "fjall")]
        on_fjall::opens();
    }
    if all || wants("transactions") {
        transactions_on_sled();
        #[cfg(feature = "fjall")]
        on_fjall::transactions();
    }
    if all || wants("loads") {
        loads("bulk load against puts (a record)", |path| {
            let (store, table, _) = exuvia(path, 0);
            (store, table)
        });
        #[cfg(feature = "fjall")]
        on_fjall::loads();
    }
}
