//! What the named tests have in common: a table of users, its raw trees, and a migration driven by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use exuvia::engine::MemoryEngine;
use exuvia::migration::NewWrites;
use exuvia::migration::Status;
use exuvia::{Durability, Migration, Options, Phase, Result, Store, Table, Version};

use crate::kit::hook_engine::{Call, HookEngine, PATIENCE};
use crate::kit::types::*;

/// Trees of the first table of a store: table 1, generation 2 and, once a migration is begun, 3.
pub const BASE: &str = "1/2";
pub const OVERLAY: &str = "1/3";
pub const CATALOG: &str = "catalog";

pub fn options() -> Options {
    // No flush that the test did not ask for.
    Store::options().durability(Durability::Buffered { interval: Duration::from_secs(3600) })
}

pub fn open(engine: &HookEngine) -> Store {
    options().open_in(Arc::new(engine.clone())).unwrap()
}

pub struct Scene {
    pub engine: HookEngine,
    pub store: Store,
    pub old: Table<u64, UserV1>,
    pub new: Table<u64, UserV2>,
}

/// The record that a scene starts with under a key.
pub fn first(id: u64) -> UserV1 {
    v1(&format!("Ann N{id}"), (id % 90) as u32)
}

/// The same at the new view.
pub fn first2(id: u64) -> UserV2 {
    v2("Ann", &format!("N{id}"), (id % 90) as u32, None)
}

/// A store with `count` users at version 1, and handles at both views.
pub fn scene(count: u64) -> Scene {
    scene_in(HookEngine::new(MemoryEngine::recording()), count)
}

pub fn scene_in(engine: HookEngine, count: u64) -> Scene {
    scene_with(options(), engine, count)
}

pub fn scene_with(options: Options, engine: HookEngine, count: u64) -> Scene {
    let store = options.open_in(Arc::new(engine.clone())).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..count {
        old.put(&id, &first(id)).unwrap();
    }
    let new = store.table("users").unwrap();
    Scene { engine, store, old, new }
}

impl Scene {
    /// Begins the migration "split" with its backfill paused.
    pub fn begin(&self) -> Migration {
        self.store.plan("split").table(&self.new).paused().begin().unwrap()
    }

    /// What the old view reads, by scan.
    pub fn all_old(&self) -> BTreeMap<u64, UserV1> {
        self.old.scan(..).map(Result::unwrap).collect()
    }

    /// What the new view reads, by scan.
    pub fn all_new(&self) -> BTreeMap<u64, UserV2> {
        self.new.scan(..).map(Result::unwrap).collect()
    }

    /// Both views by scan and by get, compared key by key.
    pub fn check_scans_agree(&self, keys: impl Iterator<Item = u64>) {
        let (old, new) = (self.all_old(), self.all_new());
        for id in keys {
            assert_eq!(self.old.get(&id).unwrap(), old.get(&id).cloned(), "key {id} at the old view");
            assert_eq!(self.new.get(&id).unwrap(), new.get(&id).cloned(), "key {id} at the new view");
        }
    }

    pub fn entry(&self, tree: &str, id: u64) -> Option<Raw> {
        self.engine.dump(tree).get(id.to_be_bytes().as_slice()).map(|bytes| raw(bytes))
    }

    pub fn contract(&self, migration: &Migration) {
        migration.contract().unwrap().execute().unwrap();
    }

    /// Waits until nothing is swept any more.
    pub fn swept(&self) {
        until("the sweep", || !self.store.is_sweeping());
    }

    pub fn ledger(&self) -> Vec<String> {
        self.store.ledger().unwrap().into_iter().map(|entry| entry.what).collect()
    }
}

/// Steps until the backfill is complete.
pub fn complete(migration: &Migration) -> Status {
    for _ in 0..10_000 {
        let status = migration.step(1000).unwrap();
        if status.phase == Phase::Complete {
            return status;
        }
    }
    panic!("the backfill does not end: {:?}", migration.status());
}

pub fn phase(migration: &Migration) -> Phase {
    migration.status().unwrap().phase
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The flag of a derived entry.
pub const DERIVED: u8 = 4;

/// An envelope, taken apart by the format's description and not by the crate's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    pub flags: u8,
    pub version: u8,
    pub main: Vec<u8>,
    pub companion: Option<(u8, Vec<u8>)>,
}

pub fn raw(bytes: &[u8]) -> Raw {
    assert_eq!(bytes[0] >> 4, 1, "the format");
    let (flags, version) = (bytes[0] & 0x0f, bytes[1]);
    let body = &bytes[2..bytes.len() - 4];
    // Versions and lengths of these tests are below 128: one byte each.
    if flags & 2 == 0 {
        return Raw { flags, version, main: body.to_vec(), companion: None };
    }
    let (companion, len) = (body[0], usize::from(body[1]));
    let (main, last) = body[2..].split_at(body.len() - 2 - len);
    Raw { flags: flags & !2, version, main: main.to_vec(), companion: Some((companion, last.to_vec())) }
}

pub fn bytes<V: Version>(record: &V) -> Vec<u8> {
    let mut out = Vec::new();
    record.encode(&mut out).unwrap();
    out
}

/// A fold that stands before its first move, until it is released.
pub struct StandingFold {
    release: Sender<()>,
    fold: thread::JoinHandle<Result<()>>,
}

impl StandingFold {
    /// Abandons a rolled-back migration whose overlay holds an entry of `key` that has to be moved.
    pub fn start(engine: &HookEngine, migration: &exuvia::Migration, key: u64) -> Self {
        let (reached, at): (Sender<()>, Receiver<()>) = channel();
        let (release, released) = channel::<()>();
        engine.before_key(Call::Commit, "1/*", key, move || {
            reached.send(()).unwrap();
            released.recv_timeout(PATIENCE).unwrap();
        });
        let plan = migration.abandon(NewWrites::Keep).unwrap();
        let fold = thread::spawn(move || plan.execute().map(drop));
        at.recv_timeout(PATIENCE).unwrap();
        StandingFold { release, fold }
    }

    pub fn end(self) {
        self.release.send(()).unwrap();
        self.fold.join().unwrap().unwrap();
    }
}
