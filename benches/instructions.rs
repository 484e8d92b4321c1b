//! What an operation costs in instructions, beside the raw engine doing the same work with the same codec: figures
//! that a busy machine does not change.
//!
//! `cargo bench --bench instructions [--features fjall]` runs itself under `valgrind --tool=callgrind`, once for each
//! operation and side, and prints the ratios. Counted are the instructions of the calling thread inside the measured
//! loop: both sides go through the same number of the same keys, after passes that are not counted. Threads of
//! the engines and of the store are left out on both sides. Without valgrind it says so and measures nothing.
//!
//! An instruction count is no time: it knows no waits for memory, for a lock or for the disk.

#[cfg(feature = "fjall")]
#[path = "subjects/fjall.rs"]
#[allow(dead_code, reason = "each bench uses some of it")]
mod fjall_by_hand;
mod subjects;

use std::hint::black_box;
use std::process::{Command, ExitCode};

use exuvia::{Store, Table, Version};

use subjects::{
    ItemV1, ItemV2, Scratch, exuvia, item, our_exchange, our_scan, pairs, raw, raw_exchange, raw_get,
    raw_put, raw_scan, shuffled,
};

const RECORDS: u64 = 20_000;
const OPS: usize = 2_000;
const SCAN_RECORDS: usize = 10_000;

/// Operation, how many of it are counted, and the ratio that is aimed at.
const CASES: [(&str, usize, f64); 5] = [
    ("get", OPS, 1.10),
    ("get-upcast", OPS, 1.10),
    ("put", OPS, 1.10),
    ("scan", SCAN_RECORDS, 1.15),
    // Of two reads and two writes.
    ("transaction", OPS / 2, 2.50),
];

#[cfg(feature = "fjall")]
const ENGINES: [&str; 2] = ["sled", "fjall"];
#[cfg(not(feature = "fjall"))]
const ENGINES: [&str; 1] = ["sled"];

/// The one function in which callgrind counts, by its name.
#[inline(never)]
fn counted_by_callgrind(job: &mut dyn FnMut()) {
    job();
}

fn measure(mut job: impl FnMut()) {
    // The first passes fill caches, make what is made once, and free what the load left behind.
    (0..3).for_each(|_| job());
    counted_by_callgrind(&mut job);
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--one")
        && let [engine, side, case] = &args[at + 1..]
    {
        run_one(engine, side, case);
        return ExitCode::SUCCESS;
    }
    // `cargo test --benches`, and criterion's list mode for other benches.
    if args.iter().any(|arg| arg == "--test" || arg == "--list") {
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: there is no valgrind here (Debian and Ubuntu: apt-get install valgrind)");
        return ExitCode::SUCCESS;
    }
    for engine in ENGINES {
        for (case, ops, aim) in CASES {
            match (count(engine, "exuvia", case), count(engine, "raw", case)) {
                (Some(ours), Some(raws)) => println!(
                    "{engine}: {case}: ratio {:.3} (aim {aim:.2}); exuvia {}, raw {} instructions an operation",
                    ours as f64 / raws as f64,
                    ours / ops as u64,
                    raws / ops as u64,
                ),
                _ => {
                    println!("{engine}: {case}: callgrind gave no count; run it by hand to see why");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

/// The instructions of one side of one case.
fn count(engine: &str, side: &str, case: &str) -> Option<u64> {
    let own = std::env::current_exe().ok()?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.args(["--collect-atstart=no", "--toggle-collect=*counted_by_callgrind*"]);
    let output = valgrind.arg(own).args(["--one", engine, side, case]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = text.lines().find_map(|line| line.split("Collected :").nth(1));
    collected?.trim().parse().ok().filter(|count| output.status.success() && *count > 0)
}

fn run_one(engine: &str, side: &str, case: &str) {
    let dir = Scratch::new(&format!("count-{engine}-{side}-{case}"));
    let keys: Vec<u64> = shuffled(RECORDS).take(OPS).collect();
    match (engine, side) {
        #[cfg(feature = "fjall")]
        ("fjall", "raw") => raw_fjall(&fjall_by_hand::Raw::load(&dir.0, RECORDS), case, &keys),
        #[cfg(feature = "fjall")]
        ("fjall", _) => {
            let (store, old) = fjall_by_hand::load_store(&dir.0, RECORDS);
            let new = store.table("items").expect("table opens");
            ours(&store, &old, &new, case, &keys);
        }
        (_, "raw") => {
            let (_db, tree) = raw(&dir.0, RECORDS);
            raw_sled(&tree, case, &keys);
        }
        _ => {
            let (store, old, new) = exuvia(&dir.0, RECORDS);
            ours(&store, &old, &new, case, &keys);
        }
    }
}

fn ours(store: &Store, old: &Table<u64, ItemV1>, new: &Table<u64, ItemV2>, case: &str, keys: &[u64]) {
    let record = item(7);
    match case {
        "get" => measure(|| keys.iter().for_each(|id| drop(black_box(old.get(id))))),
        "get-upcast" => measure(|| keys.iter().for_each(|id| drop(black_box(new.get(id))))),
        "put" => measure(|| keys.iter().for_each(|id| old.put(id, &record).expect("put"))),
        "transaction" => measure(|| pairs(keys).for_each(|(a, b)| our_exchange(store, old, a, b))),
        _ => measure(|| our_scan(old, SCAN_RECORDS)),
    }
}

fn raw_sled(tree: &sled::Tree, case: &str, keys: &[u64]) {
    let record = item(7);
    match case {
        "get" => measure(|| keys.iter().for_each(|id| drop(black_box(raw_get(tree, *id))))),
        "get-upcast" => {
            measure(|| keys.iter().for_each(|id| drop(black_box(raw_get(tree, *id).map(ItemV2::upcast)))))
        }
        "put" => measure(|| keys.iter().for_each(|id| raw_put(tree, *id, &record))),
        "transaction" => measure(|| pairs(keys).for_each(|(a, b)| raw_exchange(tree, a, b))),
        _ => measure(|| raw_scan(tree, SCAN_RECORDS)),
    }
}

#[cfg(feature = "fjall")]
fn raw_fjall(raw: &fjall_by_hand::Raw, case: &str, keys: &[u64]) {
    let record = item(7);
    match case {
        "get" => measure(|| keys.iter().for_each(|id| drop(black_box(raw.get::<ItemV1>(*id))))),
        "get-upcast" => {
            measure(|| keys.iter().for_each(|id| drop(black_box(raw.get(*id).map(ItemV2::upcast)))))
        }
        "put" => measure(|| keys.iter().for_each(|id| raw.put(*id, &record))),
        "transaction" => measure(|| pairs(keys).for_each(|(a, b)| raw.exchange(a, b))),
        _ => measure(|| raw.scan(SCAN_RECORDS)),
    }
}
