//! A store that is opened read-only changes nothing.

use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::migration::NewWrites;
use exuvia::{Error, Result, Store, Table};

use crate::kit::hook_engine::{Call, HookEngine};
use crate::kit::scene::*;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

#[test]
fn a_read_only_store_refuses_every_write_and_every_verb() {
    let s = scene(20);
    let migration = s.begin();
    migration.step(5).unwrap();
    s.new.put(&100, &v2("New", "N", 1, Some("n@x"))).unwrap();
    s.store.flush().unwrap();
    let engine = HookEngine::new(s.engine.inner().crash_image(|_| true));
    let store = options().read_only(true).open_in(Arc::new(engine.clone())).unwrap();
    let (old, new): (Table<u64, UserV1>, Table<u64, UserV2>) =
        (store.table("users").unwrap(), store.table("users").unwrap());
    assert_eq!((old.len().unwrap(), new.len().unwrap()), (21, 21));
    assert_eq!(new.get(&100).unwrap(), s.new.get(&100).unwrap());
    let migration = store.migration("split").unwrap();
    assert_eq!(store.migrations().unwrap().len(), 1);
    let refusals: Vec<(&str, Result<()>)> = vec![
        ("put", old.put(&1, &first(1))),
        ("put at to", new.put(&1, &first2(1))),
        ("remove", old.remove(&1)),
        ("clear", old.clear()),
        ("bulk load", old.bulk_load([]).map(|_| ())),
        ("rename", store.rename_table("users", "people")),
        ("drop", store.drop_table("users")),
        ("begin", store.plan("m").table(&new).begin().map(|_| ())),
        ("pause", migration.pause()),
        ("unpause", migration.unpause()),
        ("step", migration.step(1).map(|_| ())),
        ("restart", migration.restart()),
        ("rollback", migration.rollback()),
        ("resume", migration.resume()),
        ("contract", migration.contract().map(|_| ())),
        ("abandon", migration.abandon(NewWrites::Keep).map(|_| ())),
    ];
    for (what, refused) in refusals {
        assert!(matches!(refused, Err(Error::ReadOnly)), "{what}: {refused:?}");
    }
    let made = store.table::<u64, UserV1>("new").unwrap_err();
    assert!(made.to_string().contains("read-only"), "{made}");
    assert!(store.verify().unwrap().is_clean());
    store.inventory().unwrap();
    store.ledger().unwrap();
    store.flush().unwrap();
    store.close().unwrap();
    assert_eq!(engine.writes("*"), 0);
    assert_eq!(engine.count(Call::Flush, "*") + engine.count(Call::Flush, ""), 0);
    let empty = options().read_only(true).open_in(Arc::new(MemoryEngine::new()));
    assert!(empty.is_err(), "nothing is made where there is nothing");
}

#[test]
fn a_read_only_open_of_a_directory_makes_nothing() {
    let scratch = Scratch::new("read-only");
    let place = scratch.path().join("store");
    let refused = Store::options().read_only(true).open(&place).unwrap_err();
    assert!(matches!(refused, Error::Path { .. }), "{refused:?}");
    assert!(!place.exists());
    let store = Store::open(&place).unwrap();
    store.table::<u64, UserV1>("users").unwrap().put(&1, &first(1)).unwrap();
    store.close().unwrap();
    let store = Store::options().read_only(true).open(&place).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    assert_eq!(users.get(&1).unwrap(), Some(first(1)));
    assert!(matches!(users.put(&2, &first(2)), Err(Error::ReadOnly)));
    assert!(matches!(Store::open(&place), Err(Error::Locked { .. })));
    let space = store.space().unwrap();
    assert!(space.bytes_on_disk > 0);
    assert!(cfg!(not(unix)) || space.bytes_free.unwrap() > 0);
}
