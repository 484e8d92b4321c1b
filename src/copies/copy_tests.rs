//! A copy beside writers that overwrite more than may be held in memory for it.

use std::sync::Arc;

use crate::engine::EngineErrorKind;
use crate::engine::{
    Capabilities, Check, Engine, EngineResult, MemoryEngine, Outcome, Snapshot, Tree, Write,
};
use crate::{CastError, Error, Options, Origin, Store, Table, Version};

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Note(String);

impl Version for Note {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

fn note(id: u64, round: u32) -> Note {
    Note(format!("{id} {round} {}", "x".repeat(100)))
}

const RECORDS: u64 = 200;
/// Where the records are: the first table's first generation.
const TREE: &str = "1/2";

/// Lets writers come when the moment is taken and no record is copied yet.
struct Destination<F> {
    engine: MemoryEngine,
    writers: F,
}

impl<F: Fn() + Send + Sync> Engine for Destination<F> {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        if name == TREE && !self.engine.trees()?.iter().any(|tree| tree == TREE) {
            (self.writers)();
        }
        self.engine.tree(name)
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        self.engine.trees()
    }

    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        self.engine.drop_tree(name)
    }

    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        self.engine.commit(checks, writes)
    }

    fn flush(&self) -> EngineResult<()> {
        self.engine.flush()
    }

    fn capabilities(&self) -> Capabilities {
        self.engine.capabilities()
    }

    fn snapshot(&self) -> EngineResult<Option<Arc<dyn Snapshot>>> {
        self.engine.snapshot()
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        self.engine.bytes_on_disk()
    }
}

fn options() -> Options {
    let mut options = Store::options();
    // Some 40 records of this size.
    options.settings.saved_bytes_max = 8 << 10;
    options
}

fn is_of(table: &Table<u64, Note>, round: impl Fn(u64) -> u32) {
    assert_eq!(table.len().expect("read"), RECORDS);
    for id in 0..RECORDS {
        assert_eq!(table.get(&id).expect("read"), Some(note(id, round(id))), "{id}");
    }
}

/// Copies while the first `overwritten` records are written again.
fn beside_writers(store: &Store, overwritten: u64, round: u32) -> crate::Result<MemoryEngine> {
    let notes: Table<u64, Note> = store.table("notes").expect("there");
    let engine = MemoryEngine::new();
    let writers = || {
        for id in 0..overwritten {
            notes.put(&id, &note(id, round)).expect("a writer is never refused for a copy's sake");
        }
    };
    store.copy_in(&Destination { engine: engine.clone(), writers }).map(|report| {
        assert!(report.is_clean());
        engine
    })
}

#[test]
fn a_copy_beside_too_many_writes_is_given_up_and_the_next_one_is_made() {
    let store = options().open_in(Arc::new(MemoryEngine::new())).expect("opened");
    gives_up_and_copies_again(&store);
}

#[cfg(feature = "sled")]
#[test]
fn a_copy_of_sled_beside_too_many_writes_is_given_up_and_the_next_one_is_made() {
    let path = std::env::temp_dir().join(format!("exuvia-copy-limit-{}", std::process::id()));
    let _left_by_an_earlier_process = std::fs::remove_dir_all(&path);
    let store = options().engine(crate::engine::EngineKind::Sled).open(&path).expect("opened");
    gives_up_and_copies_again(&store);
    store.close().expect("closed");
    std::fs::remove_dir_all(&path).expect("removed");
}

fn gives_up_and_copies_again(store: &Store) {
    let notes: Table<u64, Note> = store.table("notes").expect("made");
    for id in 0..RECORDS {
        notes.put(&id, &note(id, 0)).expect("written");
    }
    for round in 1..3 {
        let error = beside_writers(store, RECORDS, round).err().expect("too much was overwritten");
        assert!(matches!(&error, Error::Engine(e) if e.kind() == EngineErrorKind::Limit), "{error:?}");
        let said = error.to_string();
        for part in [
            "more than 8192 bytes were overwritten",
            "the store goes on",
            "when less is written",
            "larger budget",
        ] {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
        is_of(&notes, |_| round);
    }
    assert!(store.verify().expect("verified").is_clean());

    // With few writes beside it, and as it was before them.
    let copied = beside_writers(store, 20, 3).expect("copied");
    let copied = Store::options().open_in(Arc::new(copied)).expect("opened");
    is_of(&copied.table("notes").expect("there"), |_| 2);
    is_of(&notes, |id| if id < 20 { 3 } else { 2 });
}
