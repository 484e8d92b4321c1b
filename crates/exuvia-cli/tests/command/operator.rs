//! The verbs of an operator, by the `exuvia` command.

use std::path::Path;

use exuvia::engine::EngineKind;
use exuvia::{Phase, Store, Table};

use crate::command::{DONE, INPUT, USAGE, refused, run, run_json};
use crate::kit::kinds::kinds;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

/// The state does not allow it.
const REFUSED: i32 = 5;

/// A store of 20 users whose migration "split" is open and half copied.
fn half_way(kind: EngineKind, path: &Path) {
    let store = Store::options().engine(kind).open(path).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..20 {
        old.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    migration.step(10).unwrap();
    new.put(&3, &v2("Eve", "E", 9, Some("e@x"))).unwrap();
    store.close().unwrap();
}

#[test]
fn a_store_without_its_program_is_rolled_back_paused_and_resumed() {
    kinds().for_each(a_store_without_its_program_is_rolled_back_paused_and_resumed_on);
}

fn a_store_without_its_program_is_rolled_back_paused_and_resumed_on(kind: EngineKind) {
    let scratch = Scratch::new("verbs");
    let path = scratch.path().join("store");
    let at = path.to_str().unwrap();
    half_way(kind, &path);

    let (out, _) =
        run(&["rollback", at, "split", "--why", "names are wrong", "--by", "ada", "--fenced"], DONE);
    assert!(out.contains("rollback of migration split is done: it is rolled back"), "{out}");
    let status = run_json(&["status", at, "--json"]);
    let migration = &status["migrations"][0];
    assert_eq!((&migration["phase"], &migration["fenced"]), (&"rolled back".into(), &true.into()));
    assert_eq!(status["tables"][0]["active"], 1);
    refused(&["rollback", at, "split"], REFUSED, &["it is rolled back, so it cannot be rolled back"]);

    let answer = run_json(&["resume", at, "split", "--json"]);
    assert_eq!(answer, serde_json::json!({ "migration": "split", "phase": "open", "paused": false }));
    assert!(run(&["unpause", at, "split"], DONE).0.contains("it is open"));
    assert!(run(&["pause", at, "split", "--by", "bob"], DONE).0.contains("its backfill is paused"));
    refused(&["resume", at, "split"], REFUSED, &["it is open, so it cannot be resumed"]);

    let ledger = run_json(&["ledger", at, "--json"]);
    let entries = ledger["entries"].as_array().unwrap();
    let said = |what: &str| entries.iter().find(|entry| entry["what"] == what).unwrap();
    assert_eq!(
        (&said("rollback")["why"], &said("rollback")["by"]),
        (&"names are wrong".into(), &"ada".into())
    );
    assert_eq!(said("pause")["by"], "bob");
    assert_eq!(entries.len(), 6, "create, begin and one for each verb: {ledger}");

    // The program finds what the operator left: no backfill before it is told to.
    let store = Store::open(&path).unwrap();
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.migration("split").unwrap();
    assert_eq!(new.get(&3).unwrap(), Some(v2("Eve", "E", 9, Some("e@x"))));
    assert_eq!(migration.status().unwrap().backfill, exuvia::migration::Backfill::Paused);
    migration.why("enough seen").by("eve").unpause().unwrap();
    assert_eq!(migration_phase(&store), Phase::Complete);
    let last = store.ledger().unwrap().into_iter().find(|entry| entry.by == "eve").unwrap();
    assert_eq!((last.what.as_str(), last.why.as_str()), ("unpause", "enough seen"));
}

fn migration_phase(store: &Store) -> Phase {
    store.migration("split").unwrap().wait().unwrap().phase
}

#[test]
fn verbs_that_cannot_be_done_say_why() {
    kinds().for_each(verbs_that_cannot_be_done_say_why_on);
}

fn verbs_that_cannot_be_done_say_why_on(kind: EngineKind) {
    let scratch = Scratch::new("verbs-refused");
    let path = scratch.path().join("store");
    let at = path.to_str().unwrap();
    for verb in ["rollback", "resume", "pause", "unpause"] {
        refused(&[verb, at, "split"], INPUT, &["there is no store here"]);
    }
    assert!(!path.exists());
    half_way(kind, &path);
    for verb in ["rollback", "resume", "pause", "unpause"] {
        refused(&[verb, at, "spilt"], REFUSED, &["migration spilt", "no migration of this name"]);
        refused(&[verb, at], USAGE, &["<MIGRATION>"]);
    }
    let store = Store::open(&path).unwrap();
    refused(&["rollback", at, "split"], INPUT, &["open in another process"]);
    store.close().unwrap();
}
