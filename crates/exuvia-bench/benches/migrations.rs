//! What a migration does to a store besides the pauses that `exuvia bench` measures: `cargo bench -p exuvia-bench --bench
//! migrations`, and with `--features fjall` on fjall too where it says so. `-- operations`, `-- rate`, `-- growth` and `-- space` run
//! those parts alone.
//!
//! - `operations`: writes and reads while a migration is open, beside those of a settled store; pairs in turn.
//! - `rate`: a backfill without a budget beside loops by hand on raw sled, with nothing else going on: the one that overwrites, and one
//!   that keeps the old records, as a store must that can roll back.
//! - `growth`: rate and memory of a backfill without a budget, by the number of records; drawn into `migrations/growth.svg` in
//!   cargo's directory for the temporary files of benchmarks.
//! - `space`: bytes on disk before, during and after two migrations, one after the other.
//!
//! `-- --test` runs all of them with few records. Figures are of the machine; see docs/performance.md.

#[path = "../../../benches/subjects/mod.rs"]
mod subjects;

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use exuvia::engine::EngineKind;
use exuvia::{Budget, CastError, Migration, Phase, Store, Table, Version};
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use subjects::paired::{OPS_PER_ROUND, ROUNDS, paired_fresh, paired_rounds};
use subjects::{ItemV1, ItemV2, Scratch, backfill, begin, decode, encode, exuvia, item, raw, shuffled};

type Failed = Box<dyn std::error::Error>;

/// The version after [`ItemV2`], for the second migration.
#[derive(Serialize, Deserialize, Clone)]
struct ItemV3 {
    title: String,
    item: ItemV2,
}

impl Version for ItemV3 {
    const VERSION: u32 = 3;
    type Previous = ItemV2;

    fn upcast(item: ItemV2) -> Result<Self, CastError> {
        Ok(ItemV3 { title: String::from("item"), item })
    }

    fn downcast(&self, _last: Option<ItemV2>) -> Result<ItemV2, CastError> {
        Ok(self.item.clone())
    }
}

fn upcast(id: u64) -> ItemV2 {
    ItemV2::upcast(item(id)).expect("every item can be cast")
}

/// A store of this engine with so many records of version 1.
fn store(path: &Path, engine: EngineKind, records: u64) -> Result<(Store, Table<u64, ItemV1>), Failed> {
    let store = Store::options().engine(engine).open(path)?;
    let table: Table<u64, ItemV1> = store.table("items")?;
    table.bulk_load((0..records).map(|id| (id, item(id))))?;
    Ok((store, table))
}

/// The engines that are built in.
fn engines() -> Vec<EngineKind> {
    let fjall = cfg!(feature = "fjall").then(|| EngineKind::from_name("fjall")).flatten();
    [EngineKind::from_name("sled"), fjall].into_iter().flatten().collect()
}

/// Operations on a table of which a migration is open, beside those of a settled table.
fn operations(small: bool) -> Result<(), Failed> {
    let records: u64 = if small { 2_000 } else { 100_000 };
    println!("operations: exuvia is the table with the open migration, raw a settled one of the same engine");
    for engine in engines() {
        let (settled_dir, open_dir) = (Scratch::new("settled"), Scratch::new("open"));
        let (settled_store, _) = store(&settled_dir.0, engine, records)?;
        let settled: Table<u64, ItemV2> = settled_store.table("items")?;
        settle(&backfill(&settled_store, "settled", &settled), &settled_store)?;
        let (open_store, v1) = store(&open_dir.0, engine, records)?;
        let v2: Table<u64, ItemV2> = open_store.table("items")?;
        let keys: Vec<u64> = shuffled(records).take(OPS_PER_ROUND).collect();
        let gets = |table: &Table<u64, ItemV2>| keys.iter().for_each(|id| drop(black_box(table.get(id))));
        let new = upcast(7);
        let puts = |table: &Table<u64, ItemV2>| keys.iter().for_each(|id| table.put(id, &new).expect("put"));
        let beside = |what: &str, ours: &dyn Fn(), settled: &dyn Fn()| {
            let rounds = if small { 1 } else { ROUNDS };
            paired_rounds(&format!("{}: {what}", engine.name()), (rounds, keys.len()), ours, settled);
        };

        let migration = begin(&open_store, "open", &v2);
        beside("get, not yet migrated", &|| gets(&v2), &|| gets(&settled));
        let puts_of = |table: &Table<u64, ItemV2>, keys: &[u64]| {
            keys.iter().for_each(|id| table.put(id, &new).expect("put"));
        };
        first_puts(
            &format!("{}: put, the first of a key since the begin", engine.name()),
            records,
            |keys| puts_of(&v2, keys),
            |keys| puts_of(&settled, keys),
        );
        if engine.name() == "sled" {
            raw_first_puts(records);
        }
        beside("put, not yet migrated", &|| puts(&v2), &|| puts(&settled));
        migration.unpause()?;
        migration.wait()?;
        beside("get, migrated, before contract", &|| gets(&v2), &|| gets(&settled));
        beside("put, complete, before contract", &|| puts(&v2), &|| puts(&settled));
        // The backfill brings forward what old code writes: within the default budget.
        migration.set_budget(Budget::default())?;
        let old = item(7);
        let by_old = || keys.iter().for_each(|id| v1.put(id, &old).expect("put"));
        beside("put by the old program, before contract", &by_old, &|| puts(&settled));
    }
    Ok(())
}

/// The first write of each key, beside one to a settled table or tree.
fn first_puts(name: &str, records: u64, ours: impl Fn(&[u64]), settled: impl Fn(&[u64])) {
    // Each once, and in no order: by steps of a prime.
    let keys: Vec<u64> = (0..records).map(|n| n * 48_271 % records).collect();
    let part = keys.len() / ROUNDS;
    let (mut parts, now) = (keys.chunks_exact(part), Cell::new(&keys[..0]));
    paired_fresh(
        name,
        (ROUNDS, part),
        || now.set(parts.next().unwrap_or_default()),
        || ours(now.get()),
        || settled(now.get()),
    );
}

/// What of the first put since the begin is sled's own: both forms of a record under keys that a new tree has not, beside the
/// new form under keys that a tree has.
fn raw_first_puts(records: u64) {
    let dir = Scratch::new("first-raw");
    let (db, settled) = raw(&dir.0, records);
    let new = db.open_tree("new").expect("tree opens");
    let record = upcast(7);
    let insert = |tree: &sled::Tree, id: &u64, value: Vec<u8>| {
        tree.insert(id.to_be_bytes(), value).expect("raw put");
    };
    first_puts(
        "sled itself (in exuvia's place): both forms into a new tree, beside the new form over an old one",
        records,
        |keys| keys.iter().for_each(|id| insert(&new, id, [encode(&record), encode(&item(7))].concat())),
        |keys| keys.iter().for_each(|id| insert(&settled, id, encode(&record))),
    );
}

/// Contracts, and waits until nothing of the old version is left.
fn settle(migration: &Migration, store: &Store) -> Result<(), Failed> {
    migration.contract()?.execute()?;
    while store.is_sweeping() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// As a program does it by hand: in place, so that nobody's newer write is overwritten.
fn bare_loop(tree: &sled::Tree) {
    for entry in tree.iter() {
        let (key, old) = entry.expect("raw scan");
        let new = encode(&ItemV2::upcast(decode(&old)).expect("upcast"));
        tree.compare_and_swap(key, Some(old), Some(new)).expect("raw swap").expect("nobody else writes");
    }
}

/// The same, into a new tree, so that the old records are kept.
fn keeping_loop(db: &sled::Db, tree: &sled::Tree) {
    let kept = db.open_tree("new").expect("tree opens");
    for entry in tree.iter() {
        let (key, old) = entry.expect("raw scan");
        let new = encode(&ItemV2::upcast(decode(&old)).expect("upcast"));
        kept.compare_and_swap(key, None::<&[u8]>, Some(new)).expect("raw swap").expect("nobody else writes");
    }
}

fn rate(small: bool) {
    let records: u64 = if small { 2_000 } else { 1_000_000 };
    let rounds = if small { 1 } else { 5 };
    for keeps in [false, true] {
        let what = if keeps { "a loop that keeps the old records" } else { "the bare loop" };
        let (ours, raws) = (RefCell::new(None), RefCell::new(None));
        paired_fresh(
            &format!("sled: backfill without a budget of {records} records, beside {what} (a record)"),
            (rounds, records as usize),
            || {
                drop((ours.take(), raws.take()));
                let (our_dir, raw_dir) = (Scratch::new("rate"), Scratch::new("rate-raw"));
                *ours.borrow_mut() = Some((exuvia(&our_dir.0, records), our_dir));
                let (db, tree) = raw(&raw_dir.0, records);
                *raws.borrow_mut() = Some((tree, db, raw_dir));
            },
            || {
                let held = ours.borrow();
                let ((store, _, new), _dir) = held.as_ref().expect("it is open");
                backfill(store, "rate", new);
            },
            || {
                let held = raws.borrow();
                let (tree, db, _dir) = held.as_ref().expect("it is open");
                if keeps { keeping_loop(db, tree) } else { bare_loop(tree) }
            },
        );
    }
}

/// One point of a backfill: seconds since the begin, records done, MiB resident.
type Point = (f64, u64, f64);

/// In a process of its own, so that its memory is that of one backfill: prints a line for each point.
fn growth_of(engine: EngineKind, records: u64) -> Result<(), Failed> {
    let dir = Scratch::new("growth");
    drop(store(&dir.0, engine, records)?);
    let store = Store::options().engine(engine).open(&dir.0)?;
    let v2: Table<u64, ItemV2> = store.table("items")?;
    // What the engine keeps of its files it has read now.
    black_box(v2.len()?);
    let at = Instant::now();
    let migration = begin(&store, "growth", &v2);
    let point = |done: u64| {
        println!("{:.3} {done} {:.1}", at.elapsed().as_secs_f64(), resident_mib());
        std::io::stdout().flush()
    };
    point(0)?;
    migration.unpause()?;
    loop {
        let status = migration.status()?;
        if status.phase == Phase::Complete {
            break;
        }
        point((status.fraction * records as f64) as u64)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    point(records)?;
    Ok(())
}

/// Memory that the process has in use, in MiB; 0 where the system does not tell as Linux does.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

fn growth(small: bool) -> Result<(), Failed> {
    let sizes: &[u64] = if small { &[1_000, 2_000] } else { &[100_000, 1_000_000, 5_000_000] };
    println!("growth: a backfill without a budget, on an idle store");
    println!("engine   records  records/s  MiB at its begin    at most   growth");
    for engine in engines() {
        let mut all = Vec::new();
        for &records in sizes {
            let points = points_of(engine, records)?;
            let (_, _, first) = *points.first().ok_or("no point")?;
            let (seconds, ..) = *points.last().ok_or("no point")?;
            let most = points.iter().fold(first, |most, point| most.max(point.2));
            println!(
                "{:<6} {records:>9} {:>10.0} {first:>17.1} {most:>10.1} {:>8.1}",
                engine.name(),
                records as f64 / seconds,
                most - first
            );
            all.push((records, points));
        }
        let picture = pictures()?.join(format!("growth-{}.svg", engine.name()));
        draw(&picture, &all).map_err(|e| format!("the picture: {e}"))?;
        println!("drawn: {}", picture.display());
    }
    Ok(())
}

fn points_of(engine: EngineKind, records: u64) -> Result<Vec<Point>, Failed> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program)
        .args(["growth-of", engine.name(), &records.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut points = Vec::new();
    for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
        let line = line?;
        let fields: Vec<&str> = line.split(' ').collect();
        if let [seconds, done, mib] = fields[..] {
            points.push((seconds.parse()?, done.parse()?, mib.parse()?));
        }
    }
    if child.wait()?.success() { Ok(points) } else { Err("the backfill failed".into()) }
}

/// The directory that they are drawn into.
fn pictures() -> Result<PathBuf, Failed> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("migrations");
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Two charts over the share of records that are done: the rate so far, and the memory beyond that at the begin.
fn draw(path: &Path, all: &[(u64, Vec<Point>)]) -> Result<(), Failed> {
    let area = SVGBackend::new(path, (960, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(480);
    // Both over the share of the records that are done.
    let all: Vec<_> = all.iter().map(|(records, points)| (*records as f64, points.as_slice())).collect();
    let rates = |records: f64, points: &[Point]| -> Vec<(f64, f64)> {
        let begun = points.iter().filter(|(seconds, done, _)| *done > 0 && *seconds > 0.0);
        begun.map(|(seconds, done, _)| (*done as f64 / records, *done as f64 / seconds)).collect()
    };
    let memory = |records: f64, points: &[Point]| -> Vec<(f64, f64)> {
        let first = points.first().map_or(0.0, |point| point.2);
        points.iter().map(|(_, done, mib)| (*done as f64 / records, (mib - first).max(0.0))).collect()
    };
    type Series<'a> = &'a dyn Fn(f64, &[Point]) -> Vec<(f64, f64)>;
    let charts: [(_, &str, Series<'_>); 2] =
        [(&left, "records a second, so far", &rates), (&right, "MiB more than at the begin", &memory)];
    for (area, name, of) in charts {
        let top = all
            .iter()
            .flat_map(|(records, points)| of(*records, points))
            .fold(1.0, |top: f64, (_, y)| top.max(y));
        let mut chart = ChartBuilder::on(area)
            .caption(name, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..1.0, 0.0..top * 1.1)?;
        chart.configure_mesh().x_desc("share of the records").light_line_style(WHITE).draw()?;
        for (number, (records, points)) in all.iter().enumerate() {
            let color = Palette99::pick(number).mix(1.0);
            chart
                .draw_series(LineSeries::new(of(*records, points), color.stroke_width(2)))?
                .label(format!("{records} records"))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
    }
    area.present()?;
    Ok(())
}

fn space(small: bool) -> Result<(), Failed> {
    let records: u64 = if small { 1_000 } else { 1_000_000 };
    println!(
        "space: MiB on disk of {records} records; the sweep is over when nothing of the old version is left"
    );
    println!(
        "engine   loaded  |  first: complete  contracted  sweep (s)  |  second: complete  contracted  sweep (s)"
    );
    for engine in engines() {
        let dir = Scratch::new("space");
        let (store, _v1) = store(&dir.0, engine, records)?;
        let v2: Table<u64, ItemV2> = store.table("items")?;
        let v3: Table<u64, ItemV3> = store.table("items")?;
        let mib = || -> Result<f64, Failed> {
            store.flush()?;
            Ok(store.bytes_on_disk()? as f64 / f64::from(1 << 20))
        };
        let loaded = mib()?;
        let contracted = |migration: &Migration| -> Result<(f64, f64), Failed> {
            let at = Instant::now();
            settle(migration, &store)?;
            let took = at.elapsed().as_secs_f64();
            // fjall's own threads remove files.
            std::thread::sleep(Duration::from_secs(1));
            Ok((mib()?, took))
        };
        let first = backfill(&store, "first", &v2);
        let first_complete = mib()?;
        let (first_end, first_took) = contracted(&first)?;
        let second = backfill(&store, "second", &v3);
        let second_complete = mib()?;
        let (second_end, second_took) = contracted(&second)?;
        println!(
            "{:<6} {loaded:>8.0} {first_complete:>19.0} {first_end:>11.0} {first_took:>10.1} {second_complete:>21.0} {second_end:>11.0} \
             {second_took:>10.1}",
            engine.name()
        );
    }
    Ok(())
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [part, engine, records, ..] = &arguments[..]
        && part == "growth-of"
    {
        let engine = EngineKind::from_name(engine).ok_or("no such engine")?;
        return growth_of(engine, records.parse()?);
    }
    let wants = |part: &str| arguments.iter().any(|argument| argument == part);
    // `cargo bench` alone passes `--bench`; criterion's list and test modes are asked of all benches.
    if wants("--list") {
        return Ok(());
    }
    let small = wants("--test");
    let all = !["operations", "rate", "growth", "space"].iter().any(|part| wants(part));
    if all || wants("operations") {
        operations(small)?;
    }
    if all || wants("rate") {
        rate(small);
    }
    if all || wants("growth") {
        growth(small)?;
    }
    if all || wants("space") {
        space(small)?;
    }
    Ok(())
}
