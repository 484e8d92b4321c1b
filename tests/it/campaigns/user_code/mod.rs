//! User code may panic, take long and call back into the store, in whichever thread of whichever work: what it calls is
//! done or refused by a typed error, and everything else goes on.
//!
//! A cell of the matrix is one misbehaviour ([`Act`]) of one piece of user code ([`Site`]) in one thread ([`Place`]), once, in
//! a life of a store that comes through all of them. Each step of that life is tried again, after what the misbehaviour
//! may have changed was put right, and has to succeed. `EXUVIA_USER_CODE=all` runs every cell; without it each site and
//! place meets a panic, a sleep, the calls that wait for something, and a share of the others.

mod act;
mod named;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use exuvia::engine::MemoryEngine;
use exuvia::migration::NewWrites;
use exuvia::{Durability, Error, Migration, Phase, Store, Table};

use self::act::{Act, Hook, Id, One, Place, Site, Two, Watcher};
use crate::kit::hook_engine::{HookEngine, elsewhere};
use crate::kit::scene::until;

const RECORDS: u64 = 20;
/// A step that has to be tried more often than this does not get on.
const TRIES: usize = 12;

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Contract,
    Abandon,
}

struct Life {
    engine: HookEngine,
    store: Store,
    old: Table<Id, One>,
    new: Option<Table<Id, Two>>,
    end: End,
}

fn open(engine: &HookEngine) -> Result<Store, Error> {
    Store::options()
        .durability(Durability::Buffered { interval: Duration::from_millis(2) })
        .observer(Arc::new(Watcher))
        .observe_pauses_from(Duration::ZERO)
        .open_in(Arc::new(engine.clone()))
}

fn is_forward(phase: Phase) -> bool {
    matches!(phase, Phase::Open | Phase::Complete)
}

type Step = fn(&mut Life) -> Result<(), Error>;

impl Life {
    fn begin(end: End) -> Life {
        let engine = HookEngine::new(MemoryEngine::recording());
        let store = open(&engine).unwrap();
        let old: Table<Id, One> = store.table("t").unwrap();
        for id in 0..RECORDS {
            old.put(&Id(id), &One::of(id)).unwrap();
        }
        let beside: Table<u64, act::BesideOne> = store.table("beside").unwrap();
        drop(beside);
        let spare: Table<u64, exuvia::Plain<u64>> = store.table("spare").unwrap();
        drop(spare);
        Life { engine, store, old, new: None, end }
    }

    fn migration(&self) -> Result<Migration, Error> {
        self.store.migration("m")
    }

    fn migrated(&self) -> &Table<Id, Two> {
        self.new.as_ref().expect("the first step opens it")
    }

    fn is_over(&self) -> bool {
        let phase = self.migration().and_then(|migration| migration.status()).map(|status| status.phase);
        phase.is_ok_and(Phase::is_closed)
    }

    const STEPS: [(&'static str, Step); 9] = [
        ("open the new version", |life| {
            life.new = Some(life.store.table("t")?);
            Ok(())
        }),
        ("begin", |life| {
            if life.migration().is_err() {
                life.store.plan("m").table(life.migrated()).paused().begin()?;
            }
            Ok(())
        }),
        ("write and read", Life::use_it),
        ("backfill", |life| {
            let migration = life.migration()?;
            migration.unpause()?;
            migration.wait().map(drop)
        }),
        ("write and read", Life::use_it),
        ("ask", Life::ask),
        ("roll back and resume", |life| {
            let migration = life.migration()?;
            if migration.status()?.phase != Phase::RolledBack {
                migration.rollback()?;
            }
            life.use_it()?;
            migration.resume()?;
            migration.wait().map(drop)
        }),
        ("end", |life| {
            let migration = life.migration()?;
            if life.end == End::Contract {
                migration.pause()?;
                // For the proof to bring forward: one with a form to merge with, and one without.
                life.old.put(&Id(1), &One::of(1))?;
                life.old.put(&Id(7), &One::of(7))?;
                migration.contract()?.execute()
            } else {
                let phase = migration.status()?.phase;
                if is_forward(phase) {
                    migration.rollback()?;
                }
                act::FOLDS.store(true, Ordering::SeqCst);
                if phase == Phase::Folding {
                    migration.wait().map(drop)
                } else {
                    migration.abandon(NewWrites::Keep)?.execute()
                }
            }
        }),
        ("sweep", |life| {
            life.store.flush()?;
            until("the sweep", || !life.store.is_sweeping());
            Ok(())
        }),
    ];

    /// All user code that a caller's thread runs.
    fn use_it(&mut self) -> Result<(), Error> {
        let (old, new) = (&self.old, self.migrated());
        // A native form, which an old writer then hides.
        new.put(&Id(1), &Two(One::of(1).0, 1))?;
        old.put(&Id(1), &One::of(1))?;
        old.put(&Id(2), &One::of(2))?;
        for id in 1..RECORDS - 1 {
            assert_eq!(old.get(&Id(id))?, Some(One::of(id)), "{id}");
            assert_eq!(new.get(&Id(id))?.map(|record| record.0), Some(One::of(id).0), "{id}");
        }
        for record in old.scan(..) {
            let (id, record) = record?;
            assert_eq!(record, One::of(id.0));
        }
        for record in new.scan(..) {
            let (id, record) = record?;
            assert_eq!(record.0, One::of(id.0).0);
        }
        new.update(&Id(4), |record| {
            act::site(Site::Update);
            record
        })?;
        self.store.transaction::<_, Error>(|tx| {
            act::site(Site::Transaction);
            let record = tx.get(new, &Id(5))?;
            tx.put(new, &Id(5), &record.unwrap_or(Two(One::of(5).0, 0)))
        })?;
        let filled: Table<Id, One> = self.store.table("filled")?;
        filled.clear()?;
        let records = (0..9).map(|id| {
            act::site(Site::Records);
            (Id(id), One::of(id))
        });
        assert_eq!(filled.bulk_load(records)?, 9);
        Ok(())
    }

    /// A client of the control socket pauses and unpauses.
    #[cfg(all(unix, feature = "control"))]
    fn ask(&mut self) -> Result<(), Error> {
        use std::io::{BufRead, BufReader, Write};
        use std::os::unix::net::UnixStream;

        let scratch = crate::kit::scratch::Scratch::new("user-code");
        let path = scratch.path().join("control.sock");
        match self.store.control_socket(&path) {
            // It was tried before.
            Err(Error::State { .. }) => return Ok(()),
            made => made?,
        }
        let ask = |verb: &str| -> std::io::Result<String> {
            let mut stream = UnixStream::connect(&path)?;
            writeln!(stream, "{{\"exuvia\":1,\"verb\":\"{verb}\",\"migration\":\"m\"}}")?;
            let mut answer = String::new();
            BufReader::new(&stream).read_line(&mut answer)?;
            Ok(answer)
        };
        for verb in ["pause", "unpause"] {
            // None, if the store is closed by what was asked for.
            let answer = ask(verb).unwrap_or_default();
            assert!(
                answer.contains("\"ok\"")
                    || answer.contains("\"error\"")
                    || answer.is_empty() && matches!(self.store.flush(), Err(Error::Closed)),
                "{answer:?}"
            );
        }
        Ok(())
    }

    #[cfg(not(all(unix, feature = "control")))]
    fn ask(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Puts right what user code may have changed by its call.
    fn mend(&mut self) -> Result<(), Error> {
        if matches!(self.store.flush(), Err(Error::Closed)) {
            self.store = open(&self.engine)?;
            if self.new.is_some() {
                self.new = Some(self.store.table("t")?);
            }
            if !self.is_over() || self.end == End::Abandon {
                self.old = self.store.table("t")?;
            }
        }
        let Ok(migration) = self.migration() else { return Ok(()) };
        let phase = migration.status()?.phase;
        if phase == Phase::RolledBack {
            migration.resume()?;
        }
        if is_forward(phase) {
            migration.unpause()?;
            if self.migrated().quarantined().next().is_some() {
                migration.restart()?;
            }
        }
        Ok(())
    }

    fn check(&self, cell: &str) {
        let phase = self.migration().unwrap().status().unwrap().phase;
        assert!(phase.is_closed(), "{cell}: {phase}");
        for id in 0..RECORDS - 1 {
            let record = self.migrated().get(&Id(id)).unwrap();
            assert_eq!(record.map(|record| record.0), Some(One::of(id).0), "{cell}: {id}");
        }
        // No fence is left.
        self.migrated().put(&Id(0), &Two(0, 0)).unwrap();
        if phase == Phase::Abandoned {
            self.old.put(&Id(0), &One::of(0)).unwrap();
        }
        let report = self.store.verify().unwrap();
        assert!(report.is_clean(), "{cell}: {:?}", report.damage);
    }
}

/// What a cell came to.
#[derive(Debug)]
struct Outcome {
    fired: bool,
    /// What the call of the user code answered.
    answer: Option<Result<(), Error>>,
    /// How often a step panicked.
    panics: usize,
    /// What was counted as such.
    observer_panics: u64,
}

fn live(site: Site, place: Place, act: Act, end: End) -> Outcome {
    let cell = format!("{site:?} in {place:?} {act:?}, {end:?}");
    let mut life = Life::begin(end);
    let hook = Hook::set(site, place, act, &life.store, &life.old);
    let (mut panics, mut observer_panics) = (0, 0);
    for (name, step) in Life::STEPS {
        let mut told = Vec::new();
        while !(name != "sweep" && life.is_over()) {
            assert!(told.len() < TRIES, "{cell}: {name} does not get on: {told:?}");
            match catch_unwind(AssertUnwindSafe(|| step(&mut life))) {
                Ok(Ok(())) => break,
                Ok(Err(e)) => told.push(e.to_string()),
                Err(panic) => {
                    let own =
                        panic.downcast_ref::<String>().is_some_and(|text| text.contains("as it was told to"));
                    assert!(own, "{cell}: {name} panicked: {:?}", panic.downcast_ref::<String>());
                    panics += 1;
                }
            }
            // The hook is spent, or what is put right may meet it again.
            if let Err(e) = catch_unwind(AssertUnwindSafe(|| life.mend())).unwrap_or(Ok(())) {
                told.push(format!("to mend it: {e}"));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    if let Ok(stats) = life.store.stats() {
        observer_panics = stats.observer_panics;
    }
    Hook::clear();
    if matches!(life.store.flush(), Err(Error::Closed)) {
        life.mend().unwrap();
    }
    life.check(&cell);
    life.store.close().unwrap();
    let fired = hook.fired.load(Ordering::SeqCst);
    let answer = hook.answer.lock().take();
    Outcome { fired, answer, panics, observer_panics }
}

/// Cells are of one process, and one at a time: what misbehaves is a static.
static ONE_AT_A_TIME: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

fn cell(site: Site, place: Place, act: Act, end: End) -> Outcome {
    let name = format!("{site:?} in {place:?} {act:?}, {end:?}");
    elsewhere(&name, move || live(site, place, act, end))
}

/// Calls that wait for something, or end it.
const WAITING: [Act; 9] = [
    Act::Waits,
    Act::Pauses,
    Act::Restarts,
    Act::RollsBack,
    Act::Contracts,
    Act::Abandons,
    Act::BeginsAnother,
    Act::Drops,
    Act::Closes,
];

/// All user code is met in the caller's thread, and in the store's own what belongs there.
fn belongs(site: Site, place: Place) -> bool {
    use Site::{Decode, Encode, Merge, StateChange, Upcast, Validate, Work};
    match place {
        Place::Caller => true,
        Place::Worker => matches!(site, Upcast | Merge | Validate | Encode | Decode | Work | StateChange),
        Place::Proof => matches!(site, Upcast | Merge | Validate | Encode | Decode | Work),
        Place::Fold | Place::Sweep => matches!(site, Work | StateChange),
        Place::Flush => site == Work,
        Place::Client => cfg!(all(unix, feature = "control")) && matches!(site, Work | StateChange),
    }
}

#[test]
fn user_code_may_do_anything_anywhere() {
    let _alone = ONE_AT_A_TIME.lock();
    let all = std::env::var("EXUVIA_USER_CODE").is_ok_and(|value| value == "all");
    let (mut reached, mut cells, mut turn) = (BTreeSet::new(), 0, 0);
    for place in Place::ALL {
        for site in Site::ALL {
            // Where it is not met without a misbehaviour it is not met with one. Which thread tells of work is a race.
            let met = |end| cell(site, place, Act::Status, end).fired;
            let tries = if belongs(site, place) { 50 } else { 1 };
            let ends = std::iter::repeat_n([End::Contract, End::Abandon], tries).flatten();
            let Some(end) = ends.into_iter().find(|end| met(*end)) else {
                assert!(!belongs(site, place), "{site:?} was not met in {place:?}");
                continue;
            };
            reached.insert((place, site));
            for act in Act::ALL {
                turn += 1;
                let chosen = matches!(act, Act::Panics | Act::Sleeps) || WAITING.contains(&act);
                if !all && !chosen && turn % 7 != 0 {
                    continue;
                }
                cells += 1;
                let outcome = cell(site, place, act, end);
                if !matches!(act, Act::Panics | Act::Sleeps) {
                    assert_eq!(outcome.answer.is_some(), outcome.fired, "{site:?} in {place:?} {act:?}");
                }
                if act == Act::Closes {
                    assert!(!matches!(outcome.answer, Some(Err(_))), "{site:?} in {place:?}: {outcome:?}");
                }
                if act == Act::Panics && outcome.fired {
                    let through = place == Place::Caller && !site.observes();
                    assert!(
                        through || outcome.panics == 0,
                        "{site:?} in {place:?}: a panic came through: {outcome:?}"
                    );
                    assert_eq!(
                        outcome.observer_panics > 0,
                        site.observes(),
                        "{site:?} in {place:?}: {outcome:?}"
                    );
                }
            }
        }
    }
    println!("{cells} cells, {} of user code and place: {reached:?}", reached.len());
}
