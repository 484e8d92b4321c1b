//! Power loss: whatever a flush has acknowledged must be there after the machine has lost its power.
//!
//! 1. The store runs on an in-memory file system that knows what is durable ([`disk`], [`fs`]).
//! 2. Before a random change to that file system a crash image is taken: what is durable, and a
//!    random part of what is not. The store goes on; a run yields several images.
//! 3. Each image is laid out on a plain directory and opened by a child process ([`image`]), and what
//!    it holds is compared with what was acknowledged at that moment ([`oracle`]).
//! 4. A run may start from an image of the run before: recovery itself is then crashed, too.
//!
//! `cargo run --release -p exuvia-campaigns --bin powerloss -- --images 500 --seed 1`
//!
//! The seed determines the workload, the moments and what survives; the order in which threads run it
//! does not, so a failure may take a few runs of its seed to come back. `--keep DIR` keeps the image.

mod args;
mod attr;
mod crash;
mod disk;
mod engine_rig;
mod entry;
mod fs;
mod image;
mod oracle;
mod rig;
mod rng;
mod sled_rigs;
mod store_rig;
mod tally;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use self::args::Args;
use self::disk::{Disk, Image};
use self::fs::SharedDisk;
use self::image::Refusal;
use self::oracle::{Marks, Observed, Oracle, Verdict, state_of};
use self::rig::{Rig, TREES};
use self::rng::Rng;
use self::tally::{Moment, Tally};

/// The store's directory in the image. Its parent is durable before the store sees it.
const STORE: &str = "run/store";
const IMAGES_PER_RUN: usize = 12;
/// Of these, so many at most while the store is being opened: some engines change more files for that than in all the rest.
const IMAGES_OF_OPENING: usize = 6;
/// A run has a few seconds of work; a store that takes longer hangs.
const RUN_PATIENCE: Duration = Duration::from_secs(120);

/// One crash: the image, what it owes, and where the store was.
struct Crash {
    image: Image,
    marks: Marks,
    moment: Moment,
    change: usize,
}

/// Where the run is, so that the observer knows what a crash now would owe.
enum Stage {
    Opening(Marks, Moment),
    Working(Arc<Oracle>),
}

pub fn main() -> ExitCode {
    let kinds = [
        &[engine_rig::ENGINE, engine_rig::FJALL, store_rig::STORE, store_rig::ON_FJALL],
        &sled_rigs::KINDS[..],
    ]
    .concat();
    let args = match Args::parse(&kinds, "exuvia-engine") {
        Ok(args) => args,
        Err(message) => return fail(&message),
    };
    if let Some(at) = &args.read_back {
        return image::print_all(at, &args.kind, args.sizes)
            .map_or_else(|e| fail(&e), |()| ExitCode::SUCCESS);
    }
    let scratch = Scratch::new();
    let mounted = scratch.as_ref().map_err(String::clone).and_then(|scratch| {
        fs::mount(Disk::new(args.order, args.flagged_dirs), &scratch.mount).map_err(|e| format!("mount: {e}"))
    });
    let (scratch, (disk, session)) = match (&scratch, mounted) {
        (Ok(scratch), Ok(mounted)) => (scratch, mounted),
        (_, Err(why)) => {
            println!("powerloss skipped: /dev/fuse cannot be used here ({why})");
            println!("0 passed, 0 failed, 1 skipped");
            return ExitCode::SUCCESS;
        }
        (Err(_), Ok(_)) => unreachable!("mounted without a directory to mount on"),
    };
    println!(
        "powerloss: rig {} ({}), seed {}, order {:?}, {:?}, {:?}",
        args.kind.name, args.kind.what, args.seed, args.order, args.mix, args.sizes
    );
    let started = Instant::now();
    let tally = campaign(&args, scratch, &disk);
    if let Err(error) = session.umount_and_join() {
        println!("unmount: {error}");
    }
    match tally {
        Err(message) => fail(&message),
        Ok(tally) => {
            tally.print();
            let failed = tally.failed();
            println!("{} passed, {failed} failed, 0 skipped, {:.0?}", tally.clean, started.elapsed());
            if failed == 0 || args.report { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}

/// A directory for the mount point and the images, in memory if there is such a place; removed at the end.
struct Scratch {
    root: PathBuf,
    mount: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self, String> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let root = base.join(format!("exuvia-powerloss-{}", std::process::id()));
        let mount = root.join("mount");
        std::fs::create_dir_all(&mount).map_err(|e| format!("create {}: {e}", mount.display()))?;
        Ok(Scratch { root, mount })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Only rubbish is left behind if this fails, and a mount that is still there must not be emptied.
        if std::fs::remove_dir(&self.mount).is_ok() {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

fn campaign(args: &Args, scratch: &Scratch, disk: &SharedDisk) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut before: Option<Crash> = None;
    let mut run = 0;
    while tally.total() < args.images {
        run += 1;
        let mut rng = Rng::new(args.seed).fork(run);
        let which = format!("seed {} run {run}", args.seed);
        let (crashes, outcome) = one_run(args, scratch, disk, before.take(), run, &rng)?;
        if let Err(story) = outcome {
            tally.broken_run(&which, &story);
        }
        let shared = fs::lock(disk);
        tally.most_waiting = tally.most_waiting.max(shared.disk.most_waiting);
        tally.most_blobs = tally.most_blobs.max(shared.disk.most_blobs);
        drop(shared);
        let outcomes = judge_all(args, scratch, &crashes)?;
        let mut clean = Vec::new();
        for (index, (crash, outcome)) in crashes.into_iter().zip(outcomes).enumerate() {
            let which = format!("{which} image {index} at change {}", crash.change);
            if tally.enter(crash.moment, &outcome, &which) {
                clean.push(crash);
            } else if let Some(keep) = &args.keep {
                let name = format!("{}-seed{}-run{run}-image{index}", args.kind.name, args.seed);
                image::lay_out(&crash.image, &keep.join(name))?;
            }
        }
        if !clean.is_empty() && rng.chance(60) {
            let chosen = rng.within(0, clean.len() as u64 - 1) as usize;
            before = Some(clean.swap_remove(chosen));
        }
    }
    Ok(tally)
}

type Crashes = Arc<Mutex<Vec<Crash>>>;

/// Runs the workload once; crashes are taken on the way. The outer error is the test's own.
fn one_run(
    args: &Args,
    scratch: &Scratch,
    disk: &SharedDisk,
    before: Option<Crash>,
    run: u64,
    rng: &Rng,
) -> Result<(Vec<Crash>, Result<(), String>), String> {
    let (image, marks, moment) = match before {
        Some(crash) => (crash.image, crash.marks, Moment::Recovering),
        None => (Image::from([("run".to_owned(), None)]), Oracle::default().marks(), Moment::Creating),
    };
    let stage = Arc::new(Mutex::new(Stage::Opening(marks.clone(), moment)));
    let crashes = Crashes::default();
    {
        let mut shared = fs::lock(disk);
        shared.observer = None;
        shared.disk.load(&image);
        shared.observer = Some(observer(stage.clone(), crashes.clone(), rng.fork(1000)));
    }
    let path = scratch.mount.join(STORE);
    let (kind, sizes, mix, rng) = (args.kind, args.sizes, args.mix, rng.fork(2000));
    let shared = disk.clone();
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let result = (|| {
            let rig = (kind.open)(&path, sizes)?;
            let found = observe(rig.as_ref())?;
            let oracle = Arc::new(Oracle::reopened(&marks, &found));
            *stage.lock().unwrap_or_else(PoisonError::into_inner) = Stage::Working(oracle.clone());
            fs::lock(&shared).disk.most_waiting = 0;
            workload::run(rig.as_ref(), &oracle, &found, mix, run, &rng)
        })();
        // Nobody listens any more if the run has been given up.
        let _ = sender.send(result);
    });
    let outcome = match receiver.recv_timeout(RUN_PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the store panicked".to_owned()),
        Err(mpsc::RecvTimeoutError::Timeout) => return Err(format!("run {run} hangs")),
    };
    // The store is closed when its thread has ended; closing is part of the run.
    let closed = worker.join().map_err(|_| "the store panicked".to_owned());
    fs::lock(disk).observer = None;
    let taken = std::mem::take(&mut *crashes.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((taken, outcome.and(closed)))
}

fn observe(rig: &dyn Rig) -> Result<Observed, String> {
    let mut observed = Observed::new();
    for tree in 0..TREES {
        for (key, value) in rig.scan(tree)? {
            if let Some(state) = state_of(Some(&value)) {
                observed.insert((tree, key), state);
            }
        }
    }
    Ok(observed)
}

/// Takes a crash before every few changes. It runs under the disk's lock, so what is owed (read first)
/// and what is on the disk are of one moment.
fn observer(stage: Arc<Mutex<Stage>>, crashes: Crashes, mut rng: Rng) -> fs::Observer {
    // Some runs are looked at closely where they begin, others all along, so that freed segments are used again.
    let stride = [6, 24, 96][rng.within(0, 2) as usize];
    let (mut change, mut next) = (0, rng.within(1, 16) as usize);
    Box::new(move |disk| {
        change += 1;
        let mut crashes = crashes.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
        let most = if matches!(*stage, Stage::Opening(..)) { IMAGES_OF_OPENING } else { IMAGES_PER_RUN };
        if change < next || crashes.len() >= most {
            return;
        }
        let (marks, moment) = match &*stage {
            Stage::Opening(marks, moment) => (marks.clone(), *moment),
            Stage::Working(oracle) => (oracle.marks(), Moment::Working),
        };
        // Opening is short, so crashes lie closer together there.
        next = change + rng.within(1, if moment == Moment::Working { stride } else { 16 }) as usize;
        crashes.push(Crash { image: disk.crash(&mut rng), marks, moment, change });
    })
}

/// Opens every image in a child process, two at a time.
fn judge_all(
    args: &Args,
    scratch: &Scratch,
    crashes: &[Crash],
) -> Result<Vec<Result<Verdict, Refusal>>, String> {
    let next = AtomicUsize::new(0);
    let judge = |lane: usize| {
        let at = scratch.root.join(format!("image{lane}"));
        let mut judged = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(crash) = crashes.get(index) else {
                return Ok::<_, String>(judged);
            };
            image::lay_out(&crash.image, &at)?;
            let read = image::read_back(&at.join(STORE), &args.kind, args.sizes)?;
            judged.push((index, read.map(|observed| crash.marks.judge(&observed))));
        }
    };
    let lanes: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..2).map(|lane| scope.spawn(move || judge(lane))).collect();
        handles.into_iter().map(|h| h.join().unwrap_or_else(|_| Err("judging panicked".into()))).collect()
    });
    let mut all = Vec::new();
    for lane in lanes {
        all.extend(lane?);
    }
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, outcome)| outcome).collect())
}
