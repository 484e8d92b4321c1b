//! The campaign *what a refused call leaves*: nothing. Every call that can be refused is made where it is, in every phase of
//! a migration and on every engine; every tree of the engine is, byte for byte, what it was, and so is all that a store
//! shows of itself. What a verb had made before it was refused is nobody's, and is swept at once.

use std::path::PathBuf;
use std::sync::Arc;

use exuvia::engine::{Engine, MemoryEngine};
use exuvia::migration::NewWrites;
use exuvia::{Error, Migration, Plain, Result, Store, Table};

use crate::kit::format::{self, Dump};
use crate::kit::kinds::kinds;
use crate::kit::scene::{complete, first, options, until};
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

type Keyed<V> = Table<u64, V>;

/// Where the table `users` stands. `other` is settled in all of them, and `done` the name of a closed migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Settled,
    /// Begun and paused, a part copied.
    Open,
    OneWay,
    /// With a record in quarantine.
    Complete,
    /// And fenced.
    RolledBack,
    Contracted,
    Abandoned,
}

const STAGES: [Stage; 7] = [
    Stage::Settled,
    Stage::Open,
    Stage::OneWay,
    Stage::Complete,
    Stage::RolledBack,
    Stage::Contracted,
    Stage::Abandoned,
];

struct World {
    engine: Arc<dyn Engine>,
    store: Store,
    old: Keyed<UserV1>,
    new: Keyed<UserV2>,
    other_old: Keyed<UserV1>,
    other_new: Keyed<UserV2>,
    /// Nobody has begun a migration to its version: its shape is not stored.
    other_newest: Keyed<UserV3>,
    /// Of another store.
    foreign: Keyed<UserV2>,
    /// Of a table that was dropped.
    dropped: Keyed<UserV2>,
    migration: Option<Migration>,
    scratch: PathBuf,
}

impl World {
    fn new(engine: Arc<dyn Engine>, stage: Stage, scratch: PathBuf) -> World {
        let store = options().open_in(Arc::clone(&engine)).unwrap();
        let elsewhere = options().open_in(Arc::new(MemoryEngine::new())).unwrap();
        let foreign = elsewhere.table("users").unwrap();
        let third: Keyed<UserV1> = store.table("third").unwrap();
        let dropped: Keyed<UserV2> = store.table("third").unwrap();
        let done = store.plan("done").table(&dropped).paused().begin().unwrap();
        done.rollback().unwrap();
        done.abandon(NewWrites::Discard).unwrap().execute().unwrap();
        drop(third);
        store.drop_table("third").unwrap();
        let (old, new): (Keyed<UserV1>, _) = (store.table("users").unwrap(), store.table("users").unwrap());
        let (other_old, other_new): (Keyed<UserV1>, _) =
            (store.table("other").unwrap(), store.table("other").unwrap());
        for id in 0..12 {
            old.put(&id, &first(id)).unwrap();
            other_old.put(&id, &first(id)).unwrap();
        }
        if stage == Stage::Complete {
            // Its upcast fails.
            old.put(&5, &v1("Single", 5)).unwrap();
        }
        let other_newest = store.table("other").unwrap();
        let mut world = World {
            other_newest,
            engine,
            store,
            old,
            new,
            other_old,
            other_new,
            foreign,
            dropped,
            migration: None,
            scratch,
        };
        if stage != Stage::Settled {
            let plan = world.store.plan("split").why("names").table(&world.new).paused();
            let migration = if stage == Stage::OneWay { plan.one_way() } else { plan }.begin().unwrap();
            migration.step(5).unwrap();
            world.new.put(&3, &v2("New", "N3", 3, Some("n@x"))).unwrap();
            if matches!(stage, Stage::Complete | Stage::Contracted) {
                complete(&migration);
            }
            match stage {
                Stage::RolledBack => migration.rollback_fenced().unwrap(),
                Stage::Contracted => migration.contract().unwrap().execute().unwrap(),
                Stage::Abandoned => {
                    migration.rollback().unwrap();
                    migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
                }
                _ => {}
            }
            world.migration = Some(migration);
        }
        world.rest();
        world
    }

    /// Nothing is under way.
    fn rest(&self) {
        // A fold ends in the background, and the sweep of what it leaves begins after that.
        until("the sweep", || !self.store.is_sweeping() && self.dead() == 0);
        self.store.flush().unwrap();
    }

    /// Trees of records that no table has: each has one, and a second while it migrates.
    fn dead(&self) -> usize {
        let statuses = self.store.migrations().unwrap();
        let open = statuses.iter().filter(|status| !status.phase.is_closed());
        let named = self.store.tables().len() + open.map(|status| status.tables.len()).sum::<usize>();
        let trees = self.engine.trees().unwrap();
        trees.iter().filter(|tree| tree.contains('/') && !tree.starts_with("quarantine/")).count() - named
    }

    fn migration(&self) -> &Migration {
        self.migration.as_ref().unwrap()
    }

    /// All that is stored, and all that is shown.
    fn image(&self) -> (Vec<String>, Dump, String) {
        let mut trees = self.engine.trees().unwrap();
        trees.sort();
        let shown = format!(
            "{:?}\n{:?}\n{:?}\n{:?}",
            self.store.tables(),
            self.store.migrations().unwrap(),
            self.store.inventory().unwrap(),
            self.store.ledger().unwrap().len(),
        );
        (trees, format::dump(&*self.engine), shown)
    }
}

type Call = Box<dyn Fn(&World) -> Result<()>>;

#[derive(Default)]
struct Calls(Vec<(&'static str, Call)>);

impl Calls {
    fn add<R>(&mut self, name: &'static str, call: impl Fn(&World) -> Result<R> + 'static) {
        self.0.push((name, Box::new(move |world| call(world).map(drop))));
    }
}

fn long(bytes: usize) -> String {
    "n".repeat(bytes)
}

/// What is refused wherever the migration stands.
fn everywhere(calls: &mut Calls) {
    // Tables.
    calls.add("table: empty name", |w| w.store.table::<u64, UserV1>(""));
    calls.add("table: long name", |w| w.store.table::<u64, UserV1>(&long(300)));
    calls.add("table: other keys", |w| w.store.table::<String, UserV1>("users"));
    calls.add("table: other shape", |w| w.store.table::<u64, Plain<u64>>("other"));
    calls.add("rename: unknown", |w| w.store.rename_table("nobody", "somebody"));
    calls.add("rename: taken", |w| w.store.rename_table("other", "users"));
    calls.add("rename: empty", |w| w.store.rename_table("other", ""));
    calls.add("rename: long", |w| w.store.rename_table("other", &long(300)));
    calls.add("drop: unknown", |w| w.store.drop_table("nobody"));
    calls.add("a dropped table: put", |w| w.dropped.put(&1, &v2("A", "B", 1, None)));
    calls.add("a dropped table: clear", |w| w.dropped.clear());
    calls.add("a dropped table: load", |w| w.dropped.bulk_load([(1, v2("A", "B", 1, None))]));
    // Records.
    calls.add("put: not valid", |w| w.other_old.put(&1, &v1("Ann A", 201)));
    calls.add("put: newer than the table", |w| w.other_new.put(&1, &v2("A", "B", 1, Some("a@x"))));
    calls.add("insert: not valid", |w| w.other_old.insert_if_absent(&99, &v1("Ann A", 201)));
    calls.add("update: not valid", |w| w.other_old.update(&1, |_| Some(v1("Ann A", 201))));
    calls.add("swap: not valid", |w| {
        w.other_old.compare_and_swap(&1, Some(&first(1)), Some(&v1("Ann A", 201)))
    });
    calls.add("batch: one of them not valid", |w| {
        let mut batch = w.store.batch();
        batch.put(&w.other_old, &1, v1("Bob B", 1));
        batch.put(&w.other_old, &2, v1("Ann A", 201));
        batch.remove(&w.other_old, &3);
        batch.commit()
    });
    calls.add("batch: of another store", |w| {
        let mut batch = w.store.batch();
        batch.put(&w.other_old, &1, v1("Bob B", 1));
        batch.put(&w.foreign, &1, v2("A", "B", 1, None));
        batch.commit()
    });
    calls.add("transaction: it fails", |w| {
        w.store.transaction(|tx| -> Result<()> {
            tx.put(&w.other_old, &1, &v1("Bob B", 1))?;
            tx.remove(&w.other_old, &2)?;
            tx.put(&w.other_old, &3, &v1("Ann A", 201))
        })
    });
    calls.add("transaction: of another store", |w| {
        w.store.transaction(|tx| -> Result<()> {
            tx.put(&w.other_old, &1, &v1("Bob B", 1))?;
            tx.put(&w.foreign, &1, &v2("A", "B", 1, None))
        })
    });
    // Loads.
    calls.add("load: not empty", |w| w.other_old.bulk_load([(50, first(50))]));
    calls.add("load: one of them not valid", |w| {
        let empty: Keyed<UserV1> = w.store.table("empty")?;
        empty.bulk_load([(1, first(1)), (2, v1("Ann A", 201))])
    });
    calls.add("load: a key twice", |w| {
        let empty: Keyed<UserV1> = w.store.table("empty")?;
        empty.bulk_load([(1, first(1)), (2, first(2)), (1, first(1))])
    });
    // Plans.
    calls.add("begin: no table", |w| w.store.plan("none").begin());
    calls.add("begin: of another store", |w| w.store.plan("foreign").table(&w.foreign).begin());
    calls.add("begin: of a dropped table", |w| w.store.plan("gone").table(&w.dropped).begin());
    calls.add("begin: backward", |w| w.store.plan("back").table(&w.other_old).begin());
    calls.add("begin: a name that was used", |w| w.store.plan("done").table(&w.other_newest).begin());
    calls.add("begin: a table twice", |w| {
        w.store.plan("twice").table(&w.other_newest).table(&w.other_newest).begin()
    });
    calls.add("begin: one of them backward", |w| {
        w.store.plan("one").table(&w.other_newest).table(&w.old).begin()
    });
    calls.add("open_migration: unknown", |w| w.store.migration("nothing"));
    calls.add("a closed migration: every verb", |w| {
        let done = w.store.migration("done")?;
        let told = [
            done.rollback(),
            done.resume(),
            done.restart(),
            done.pause(),
            done.unpause(),
            done.step(1).map(drop),
            done.contract().map(drop),
            done.abandon(NewWrites::Discard).map(drop),
        ];
        assert!(told.iter().all(Result::is_err), "{told:?}");
        done.rollback()
    });
    // Copies.
    calls.add("copy: onto something", |w| w.store.copy_to(&w.scratch, kinds().next().unwrap()));
    calls.add("copy: into something", |w| {
        let full = MemoryEngine::new();
        full.tree("t").unwrap().put(b"k", b"v").unwrap();
        w.store.copy_in(&full)
    });
    calls.add("backup: onto something", |w| w.store.backup(&w.scratch));
}

/// What the engine cannot hold.
fn over_limits(calls: &mut Calls) {
    calls.add("put: key over the limit", |w| {
        let words: Table<String, Plain<u64>> = w.store.table("words")?;
        words.put(&long(1 << 20), &Plain::from(1))
    });
    calls.add("put: value over the limit", |w| w.other_old.put(&1, &v1(&long(9 << 20), 1)));
    calls.add("begin: a long reason", |w| {
        w.store.plan("wordy").table(&w.other_newest).why(long(9 << 20)).begin()
    });
    calls.add("begin: a long name", |w| w.store.plan(&long(9 << 20)).table(&w.other_newest).begin());
}

/// What is refused in one stage.
fn there(stage: Stage, calls: &mut Calls) {
    if stage == Stage::Settled {
        return;
    }
    calls.add("begin: its name is used", |w| w.store.plan("split").table(&w.other_new).begin());
    let closed = matches!(stage, Stage::Contracted | Stage::Abandoned);
    if closed {
        calls.add("rollback", |w| w.migration().rollback());
        calls.add("resume", |w| w.migration().resume());
        calls.add("restart", |w| w.migration().restart());
        calls.add("pause", |w| w.migration().pause());
        calls.add("step", |w| w.migration().step(1));
    } else {
        calls.add("begin: one is open", |w| w.store.plan("second").table(&w.new).begin());
        calls.add("begin: one is open for one of them", |w| {
            w.store.plan("second").table(&w.other_newest).table(&w.new).begin()
        });
        calls.add("rename", |w| w.store.rename_table("users", "people"));
        calls.add("rename onto", |w| w.store.rename_table("other", "users"));
        calls.add("drop", |w| w.store.drop_table("users"));
        calls.add("clear", |w| w.new.clear());
        calls.add("load", |w| w.new.bulk_load([(50, v2("A", "B", 1, None))]));
        calls.add("batch: with one that no old code can read", |w| {
            let mut batch = w.store.batch();
            batch.put(&w.old, &1, v1("Bob B", 1));
            batch.put(&w.new, &2, v2("two words", "", 1, None));
            batch.commit()
        });
    }
    if !matches!(stage, Stage::OneWay | Stage::Contracted) {
        calls.add("put: no old code could read it", |w| w.new.put(&2, &v2("two words", "B", 1, None)));
    }
    if matches!(stage, Stage::Open | Stage::OneWay | Stage::Complete) {
        calls.add("resume", |w| w.migration().resume());
        calls.add("abandon", |w| w.migration().abandon(NewWrites::Discard));
        calls.add("contract", |w| w.migration().contract()?.execute());
        calls.add("put: not valid at the new version", |w| w.new.put(&2, &v2("A", "", 1, None)));
    }
    if stage == Stage::OneWay {
        calls.add("rollback", |w| w.migration().rollback());
        calls.add("rollback, fenced", |w| w.migration().rollback_fenced());
    }
    if stage == Stage::Complete {
        calls.add("get: in quarantine", |w| w.new.get(&5));
        calls.add("update: in quarantine", |w| w.new.update(&5, |found| found));
        calls.add("scan: in quarantine", |w| w.new.scan(..).collect::<Result<Vec<_>>>());
    }
    if stage == Stage::RolledBack {
        calls.add("rollback", |w| w.migration().rollback());
        calls.add("restart", |w| w.migration().restart());
        calls.add("step", |w| w.migration().step(1));
        calls.add("contract", |w| w.migration().contract());
        calls.add("put: not valid at the old version", |w| w.old.put(&1, &v1("Ann A", 201)));
        calls.add("put: fenced", |w| w.new.put(&1, &v2("A", "B", 1, None)));
        calls.add("remove: fenced", |w| w.new.remove(&1));
        calls.add("batch: fenced", |w| {
            let mut batch = w.store.batch();
            batch.put(&w.other_old, &1, v1("Bob B", 1));
            batch.put(&w.new, &1, v2("A", "B", 1, None));
            batch.commit()
        });
    }
    if stage == Stage::Contracted {
        calls.add("put: below the floor", |w| w.old.put(&1, &first(1)));
        calls.add("remove: below the floor", |w| w.old.remove(&1));
        calls.add("get: below the floor", |w| w.old.get(&1));
        calls
            .add("clear: below the floor", |w| w.store.table::<u64, UserV1>("users").and_then(|t| t.get(&1)));
        calls.add("begin: already there", |w| w.store.plan("again").table(&w.new).begin());
    }
}

/// Makes every call, and looks after each.
fn refuses(engine: Arc<dyn Engine>, stage: Stage, name: &str) -> usize {
    let scratch = Scratch::new("refused");
    std::fs::write(scratch.path().join("something"), "here").unwrap();
    let world = World::new(engine, stage, scratch.path().to_owned());
    // Tables that some of the calls are about.
    drop(world.store.table::<String, Plain<u64>>("words").unwrap());
    drop(world.store.table::<u64, UserV1>("empty").unwrap());
    let mut calls = Calls::default();
    everywhere(&mut calls);
    there(stage, &mut calls);
    if world.engine.capabilities().value_bytes_max < 9 << 20 {
        over_limits(&mut calls);
    }
    world.rest();
    let before = world.image();
    for (call, make) in &calls.0 {
        let told = make(&world);
        assert!(told.is_err(), "{name}, {stage:?}: {call} was not refused");
        world.rest();
        let (trees, dump, shown) = world.image();
        assert_eq!(trees, before.0, "{name}, {stage:?}: {call} left trees ({told:?})");
        let differ = |a: &Dump, b: &Dump| -> Vec<String> {
            let only = a.iter().filter(|entry| !b.contains(entry));
            only.map(|(tree, key, _)| format!("{tree} {}", String::from_utf8_lossy(key))).collect()
        };
        let (more, fewer) = (differ(&dump, &before.1), differ(&before.1, &dump));
        assert!(
            more.is_empty() && fewer.is_empty(),
            "{name}, {stage:?}: {call} ({told:?}): {more:?} for {fewer:?}"
        );
        assert_eq!(shown, before.2, "{name}, {stage:?}: {call} shows");
    }
    works_on(&world, stage);
    let count = calls.0.len();
    is_closed(world);
    count
}

/// What is allowed is made, after all that was refused.
fn works_on(world: &World, stage: Stage) {
    world.other_old.put(&1, &v1("Works On", 1)).unwrap();
    let begun = world.store.plan("goes on").table(&world.other_new).paused().begin().unwrap();
    complete(&begun);
    begun.contract().unwrap().execute().unwrap();
    match stage {
        Stage::Settled | Stage::Abandoned => world.old.put(&1, &v1("Works On", 1)).unwrap(),
        Stage::RolledBack => {
            world.old.put(&1, &v1("Works On", 1)).unwrap();
            world.migration().resume().unwrap();
        }
        Stage::Open | Stage::OneWay => drop(complete(world.migration())),
        Stage::Complete => {
            world.new.put(&5, &v2("Works", "On", 1, None)).unwrap();
            world.migration().contract().unwrap().execute().unwrap();
        }
        Stage::Contracted => world.new.put(&1, &v2("Works", "On", 1, None)).unwrap(),
    }
    world.rest();
    assert!(world.store.verify().unwrap().is_clean());
}

/// A closed store refuses everything, and so does one that is read only; neither changes a byte.
fn is_closed(world: World) {
    let World { engine, store, old, new, other_old, other_new, other_newest, migration, .. } = world;
    store.clone().close().unwrap();
    let closed = format::dump(&*engine);
    let refused = |store: &Store, old: &Keyed<UserV1>, new: &Keyed<UserV2>| {
        let mut batch = store.batch();
        batch.put(old, &1, v1("Bob B", 1));
        let told = [
            old.put(&1, &first(1)),
            old.remove(&1),
            old.clear(),
            old.update(&1, |_| Some(first(1))).map(drop),
            old.bulk_load([(1, first(1))]).map(drop),
            batch.commit(),
            store.transaction(|tx| tx.put(old, &1, &first(1))),
            store.table::<u64, UserV1>("never made").map(drop),
            store.rename_table("empty", "full"),
            store.drop_table("empty"),
            store.plan("too late").table(new).begin().map(drop),
        ];
        assert!(told.iter().all(Result::is_err), "{told:?}");
        assert!(format::dump(&*engine) == closed);
    };
    refused(&store, &other_old, &other_new);
    for verb in
        [Migration::rollback, Migration::resume, Migration::restart, Migration::pause, Migration::unpause]
    {
        assert!(migration.iter().all(|migration| matches!(verb(migration), Err(Error::Closed))));
    }
    assert!(format::dump(&*engine) == closed);
    drop((store, old, new, other_old, other_new, other_newest, migration));
    let store = options().read_only(true).open_in(Arc::clone(&engine)).unwrap();
    let (users, newer) = (store.table("empty").unwrap(), store.table("empty").unwrap());
    refused(&store, &users, &newer);
    drop((users, newer, store));
    assert!(format::dump(&*engine) == closed, "a read-only store was closed");
}

#[test]
fn a_refused_call_leaves_nothing_in_memory() {
    for stage in STAGES {
        let calls = refuses(Arc::new(MemoryEngine::new()), stage, "memory");
        println!("{stage:?}: {calls} refused calls");
    }
}

#[test]
fn a_refused_call_leaves_nothing_on_a_disk() {
    // All of it in memory; of the engines with files the stages where the most lies open.
    for kind in kinds() {
        for stage in [Stage::Settled, Stage::Complete, Stage::RolledBack] {
            let scratch = Scratch::new("refused-on-disk");
            let engine = kind.open(scratch.path().join(kind.name()), 16 << 20).unwrap();
            refuses(engine, stage, kind.name());
        }
    }
}
