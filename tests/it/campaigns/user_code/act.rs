//! User code that misbehaves: once, at one place, in one way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use exuvia::engine::MemoryEngine;
use exuvia::measure::{LedgerEntry, Observer, Pause, Work};
use exuvia::migration::NewWrites;
use exuvia::shape::Describe;
use exuvia::shape::KeyType;
use exuvia::{CastError, Error, Key, Origin, Plain, Store, Table, Version, codec};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Which user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    Upcast,
    Downcast,
    Merge,
    Validate,
    Describe,
    Encode,
    Decode,
    EncodeKey,
    DecodeKey,
    Pause,
    Work,
    StateChange,
    Transaction,
    Update,
    Records,
}

impl Site {
    pub const ALL: [Site; 15] = [
        Site::Upcast,
        Site::Downcast,
        Site::Merge,
        Site::Validate,
        Site::Describe,
        Site::Encode,
        Site::Decode,
        Site::EncodeKey,
        Site::DecodeKey,
        Site::Pause,
        Site::Work,
        Site::StateChange,
        Site::Transaction,
        Site::Update,
        Site::Records,
    ];

    /// The store calls it to tell of something that is done.
    pub fn observes(self) -> bool {
        matches!(self, Site::Pause | Site::Work | Site::StateChange)
    }
}

/// In which thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// One of the application's.
    Caller,
    /// The worker of a migration that goes forward.
    Worker,
    /// The worker of one that is abandoned, its writes being kept.
    Fold,
    Proof,
    Sweep,
    Flush,
    Client,
}

impl Place {
    pub const ALL: [Place; 7] =
        [Place::Caller, Place::Worker, Place::Fold, Place::Proof, Place::Sweep, Place::Flush, Place::Client];

    fn here() -> Place {
        match thread::current().name() {
            Some("exuvia-backfill") if FOLDS.load(Ordering::SeqCst) => Place::Fold,
            Some("exuvia-backfill") => Place::Worker,
            Some("exuvia-prove") => Place::Proof,
            Some("exuvia-sweep") => Place::Sweep,
            Some("exuvia-flush") => Place::Flush,
            Some("exuvia-client") => Place::Client,
            _ => Place::Caller,
        }
    }
}

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    Panics,
    Sleeps,
    Gets,
    Puts,
    Removes,
    Scans,
    Updates,
    Transacts,
    Batches,
    BulkLoads,
    OpensTable,
    MakesTable,
    Renames,
    Drops,
    Clears,
    Status,
    Stats,
    Waits,
    Pauses,
    Unpauses,
    Steps,
    Restarts,
    RollsBack,
    Resumes,
    Contracts,
    Abandons,
    BeginsAnother,
    Verifies,
    Copies,
    Flushes,
    ReadsLedger,
    Closes,
}

impl Act {
    pub const ALL: [Act; 32] = [
        Act::Panics,
        Act::Sleeps,
        Act::Gets,
        Act::Puts,
        Act::Removes,
        Act::Scans,
        Act::Updates,
        Act::Transacts,
        Act::Batches,
        Act::BulkLoads,
        Act::OpensTable,
        Act::MakesTable,
        Act::Renames,
        Act::Drops,
        Act::Clears,
        Act::Status,
        Act::Stats,
        Act::Waits,
        Act::Pauses,
        Act::Unpauses,
        Act::Steps,
        Act::Restarts,
        Act::RollsBack,
        Act::Resumes,
        Act::Contracts,
        Act::Abandons,
        Act::BeginsAnother,
        Act::Verifies,
        Act::Copies,
        Act::Flushes,
        Act::ReadsLedger,
        Act::Closes,
    ];
}

/// The misbehaviour of the present cell. One cell runs at a time.
static HOOK: Mutex<Option<Arc<Hook>>> = Mutex::new(None);

/// The migration of the present cell is being abandoned.
pub static FOLDS: AtomicBool = AtomicBool::new(false);

pub struct Hook {
    site: Site,
    place: Place,
    act: Act,
    store: Store,
    old: Table<Id, One>,
    pub fired: AtomicBool,
    /// What the call into the store answered.
    pub answer: Mutex<Option<Result<(), Error>>>,
}

impl Hook {
    /// From here on user code misbehaves.
    pub fn set(site: Site, place: Place, act: Act, store: &Store, old: &Table<Id, One>) -> Arc<Hook> {
        let (store, old) = (store.clone(), old.clone());
        let hook =
            Arc::new(Hook { site, place, act, store, old, fired: false.into(), answer: Mutex::new(None) });
        FOLDS.store(false, Ordering::SeqCst);
        *HOOK.lock() = Some(Arc::clone(&hook));
        hook
    }

    pub fn clear() {
        let hook = HOOK.lock().take();
        drop(hook);
    }

    fn act(&self) {
        match self.act {
            Act::Panics => panic!("{:?} panics, as it was told to", self.site),
            Act::Sleeps => thread::sleep(Duration::from_millis(20)),
            _ => {
                let answer = self.call();
                *self.answer.lock() = Some(answer);
            }
        }
    }

    fn call(&self) -> Result<(), Error> {
        let (store, old) = (&self.store, &self.old);
        let migration = || store.migration("m");
        let beside = || store.table::<u64, BesideOne>("beside");
        match self.act {
            Act::Panics | Act::Sleeps => Ok(()),
            Act::Gets => old.get(&Id(3)).map(drop),
            Act::Puts => old.put(&Id(3), &One::of(3)),
            Act::Removes => old.remove(&Id(19)),
            Act::Scans => old.scan(..).try_for_each(|record| record.map(drop)),
            Act::Updates => old.update(&Id(3), |record| record).map(drop),
            Act::Transacts => store.transaction(|tx| {
                let record = tx.get(old, &Id(3))?;
                record.map_or(Ok(()), |record| tx.put(old, &Id(3), &record))
            }),
            Act::Batches => {
                let mut batch = store.batch();
                batch.put(old, &Id(3), One::of(3));
                batch.commit()
            }
            Act::BulkLoads => {
                let records = (0..9_u64).map(|n| (n, Plain(n)));
                store.table::<u64, Plain<u64>>("loaded")?.bulk_load(records).map(drop)
            }
            Act::OpensTable => store.table::<Id, Two>("t").map(drop),
            Act::MakesTable => store.table::<u64, Plain<u64>>("new").map(drop),
            Act::Renames => store.rename_table("spare", "renamed"),
            Act::Drops => store.drop_table("spare"),
            Act::Clears => beside()?.clear(),
            Act::Status => migration()?.status().map(drop),
            Act::Stats => store.stats().map(drop),
            Act::Waits => migration()?.wait().map(drop),
            Act::Pauses => migration()?.pause(),
            Act::Unpauses => migration()?.unpause(),
            Act::Steps => migration()?.step(5).map(drop),
            Act::Restarts => migration()?.restart(),
            Act::RollsBack => migration()?.rollback(),
            Act::Resumes => migration()?.resume(),
            Act::Contracts => migration()?.contract()?.execute(),
            Act::Abandons => migration()?.abandon(NewWrites::Keep)?.execute(),
            Act::BeginsAnother => {
                let table = store.table::<u64, BesideTwo>("beside")?;
                let other = store.plan("other").table(&table).begin()?;
                other.wait()?;
                other.contract()?.execute()
            }
            Act::Verifies => store.verify().map(drop),
            Act::Copies => store.copy_in(&MemoryEngine::new()).map(drop),
            Act::Flushes => store.flush(),
            Act::ReadsLedger => store.ledger().map(drop),
            Act::Closes => store.clone().close(),
        }
    }
}

/// Where user code begins.
pub fn site(site: Site) {
    let hook = HOOK.lock().clone();
    if let Some(hook) = hook
        && hook.site == site
        && hook.place == Place::here()
        && !hook.fired.swap(true, Ordering::SeqCst)
    {
        hook.act();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(pub u64);

impl Key for Id {
    fn encode(&self, out: &mut Vec<u8>) {
        site(Site::EncodeKey);
        self.0.encode(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, CastError> {
        site(Site::DecodeKey);
        Key::take(input).map(Id)
    }

    fn key_type() -> KeyType {
        u64::key_type()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct One(pub u64);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Two(pub u64, pub u8);

impl One {
    pub fn of(id: u64) -> One {
        One(id * 7)
    }
}

impl Version for One {
    const VERSION: u32 = 1;
    const CODEC: &'static str = "watched";
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }

    fn validate(&self) -> Result<(), CastError> {
        site(Site::Validate);
        Ok(())
    }

    fn describe(describe: &mut Describe) {
        site(Site::Describe);
        describe.trace::<Self>();
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CastError> {
        site(Site::Encode);
        codec::encode(self, out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CastError> {
        site(Site::Decode);
        codec::decode(bytes)
    }
}

impl Version for Two {
    const VERSION: u32 = 2;
    const CODEC: &'static str = "watched";
    type Previous = One;

    fn upcast(previous: One) -> Result<Self, CastError> {
        site(Site::Upcast);
        Ok(Two(previous.0, 0))
    }

    fn downcast(&self, _: Option<One>) -> Result<One, CastError> {
        site(Site::Downcast);
        Ok(One(self.0))
    }

    fn merge(previous: One, last: Self) -> Result<Option<Self>, CastError> {
        site(Site::Merge);
        Ok(Some(Two(previous.0, last.1)))
    }

    fn validate(&self) -> Result<(), CastError> {
        site(Site::Validate);
        Ok(())
    }

    fn describe(describe: &mut Describe) {
        site(Site::Describe);
        describe.trace::<Self>();
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CastError> {
        site(Site::Encode);
        codec::encode(self, out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CastError> {
        site(Site::Decode);
        codec::decode(bytes)
    }
}

/// Of a table beside that one, for what user code calls.
#[derive(Debug, Serialize, Deserialize)]
pub struct BesideOne(u64);

#[derive(Debug, Serialize, Deserialize)]
pub struct BesideTwo(u64, u8);

impl Version for BesideOne {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for BesideTwo {
    const VERSION: u32 = 2;
    type Previous = BesideOne;

    fn upcast(previous: BesideOne) -> Result<Self, CastError> {
        Ok(BesideTwo(previous.0, 0))
    }

    fn downcast(&self, _: Option<BesideOne>) -> Result<BesideOne, CastError> {
        Ok(BesideOne(self.0))
    }
}

#[derive(Debug)]
pub struct Watcher;

impl Observer for Watcher {
    fn pause(&self, _: &Pause<'_>) {
        site(Site::Pause);
    }

    fn work(&self, _: &Work) {
        site(Site::Work);
    }

    fn state_change(&self, _: &LedgerEntry) {
        site(Site::StateChange);
    }
}
