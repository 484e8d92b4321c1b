//! Types without a lineage, and handles that are shared.

use exuvia::engine::MemoryEngine;
use exuvia::migration::NewWrites;
use exuvia::{CastError, Error, Migration, Origin, Plain, Plan, Result, Scan, Store, Table, Version};
use serde::{Deserialize, Serialize};

use crate::kit::hook_engine::HookEngine;
use crate::kit::scene::*;
use crate::kit::types::*;

#[test]
fn handles_are_cloned_and_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + Sync + 'static>() {}
    shared::<Store>();
    shared::<Table<u64, UserV1>>();
    // A key or record that cannot be shared itself makes no difference to the handle.
    shared::<Table<String, Plain<Vec<u8>>>>();
    shared::<Migration>();
    sent::<Scan<u64, UserV1>>();
    sent::<Plan>();
    sent::<Error>();
}

/// The same record three times: without a lineage, with one, and the version after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    text: String,
    tags: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct NoteV1 {
    text: String,
    tags: Vec<String>,
}

impl Version for NoteV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct NoteV2 {
    text: String,
    tags: Vec<String>,
    stars: u8,
}

impl Version for NoteV2 {
    const VERSION: u32 = 2;
    type Previous = Plain<Note>;

    fn upcast(old: Plain<Note>) -> Result<Self, CastError> {
        let Note { text, tags } = old.into_inner();
        Ok(NoteV2 { text, tags, stars: 0 })
    }

    fn downcast(&self, _last: Option<Plain<Note>>) -> Result<Plain<Note>, CastError> {
        Ok(Plain(Note { text: self.text.clone(), tags: self.tags.clone() }))
    }
}

fn note(text: &str) -> Note {
    Note { text: text.to_owned(), tags: vec!["a".to_owned()] }
}

#[test]
fn a_plain_type_leaves_no_trace_in_the_store() {
    let engine = MemoryEngine::new();
    let store = open(&HookEngine::new(engine));
    let plain: Table<u64, Plain<Note>> = store.table("notes").unwrap();
    plain.put(&1, &note("one").into()).unwrap();
    assert_eq!(plain.get(&1).unwrap().unwrap().text, "one");
    // The same table by a version of one's own: same bytes, same shape.
    let own: Table<u64, NoteV1> = store.table("notes").unwrap();
    assert_eq!(own.get(&1).unwrap().unwrap().text, "one");
    own.put(&2, &NoteV1 { text: "two".into(), tags: vec![] }).unwrap();
    assert_eq!(plain.get(&2).unwrap(), Some(Plain(Note { text: "two".into(), tags: vec![] })));
    let mut bytes = (Vec::new(), Vec::new());
    Plain(note("x")).encode(&mut bytes.0).unwrap();
    NoteV1 { text: "x".into(), tags: vec!["a".into()] }.encode(&mut bytes.1).unwrap();
    assert_eq!(bytes.0, bytes.1);
    // And a migration from it.
    let new: Table<u64, NoteV2> = store.table("notes").unwrap();
    let migration = store.plan("stars").table(&new).paused().begin().unwrap();
    new.put(&3, &NoteV2 { text: "three".into(), tags: vec![], stars: 3 }).unwrap();
    complete(&migration);
    migration.rollback().unwrap();
    assert_eq!(plain.get(&3).unwrap().unwrap().into_inner().text, "three");
    migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
    assert_eq!(plain.len().unwrap(), 3);
    // Another type is refused, as ever.
    assert!(matches!(store.table::<u64, Plain<u32>>("notes"), Err(Error::Shape { .. })));
}
