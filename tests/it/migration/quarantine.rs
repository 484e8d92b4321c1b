//! The quarantine: what is listed, and when its entries go.

use crate::kit::hook_engine::Call;
use crate::kit::scene::*;
use crate::kit::types::*;

fn poisoned(ids: std::ops::Range<u64>) -> Scene {
    let s = scene(10);
    for id in ids {
        s.old.put(&id, &v1("Alone", 5)).unwrap();
    }
    s
}

#[test]
fn the_quarantine_is_listed_with_reasons_and_what_was_repaired_is_not() {
    let s = poisoned(100..900);
    assert_eq!(s.new.quarantined().count(), 0, "no migration is open");
    let migration = s.begin();
    complete(&migration);
    let listed = || s.new.quarantined().map(Result::unwrap).collect::<Vec<_>>();
    let all = listed();
    assert_eq!(all.iter().map(|(id, _)| *id).collect::<Vec<_>>(), (100..900).collect::<Vec<_>>());
    assert!(all.iter().all(|(_, reason)| reason.contains("has no last name")));
    s.new.put(&100, &first2(100)).unwrap();
    s.old.put(&101, &first(101)).unwrap();
    s.old.remove(&102).unwrap();
    s.new.put(&899, &first2(899)).unwrap();
    assert_eq!(listed().iter().map(|(id, _)| *id).collect::<Vec<_>>(), (103..899).collect::<Vec<_>>());
    // At either view, and while rolled back.
    migration.rollback().unwrap();
    assert_eq!(s.old.quarantined().count(), 796);
    s.engine.fail(Call::Scan, "quarantine/users", 2);
    let broken: Vec<_> = s.old.quarantined().collect();
    // A page of 256, of which three are repaired; then the error, and nothing more.
    assert!(broken.last().unwrap().is_err());
    assert_eq!(broken.len(), 256 - 3 + 1);
}

#[test]
fn stale_entries_of_the_quarantine_go_when_there_is_nothing_else_to_do() {
    let s = poisoned(100..900);
    let migration = s.begin();
    complete(&migration);
    for id in (100..900).filter(|id| id % 2 == 0) {
        s.new.put(&id, &first2(id)).unwrap();
    }
    let entries = || s.engine.dump("quarantine/users").len();
    assert_eq!(entries(), 800);
    // A step looks at one page, whatever the quarantine's size.
    s.engine.reset();
    migration.step(1).unwrap();
    assert!(s.engine.count(Call::Scan, "quarantine/users") <= 1);
    assert!(entries() >= 800 - 256);
    for _ in 0..8 {
        migration.step(1).unwrap();
    }
    assert_eq!(entries(), 400);
    assert_eq!(s.new.quarantined().count(), 400);
    // What is in quarantine keeps its reason.
    let reason = s.new.get(&101).unwrap_err().to_string();
    assert!(reason.contains("has no last name"), "{reason}");
    // The worker does the same by itself.
    for id in 100..900 {
        s.new.put(&id, &first2(id)).unwrap();
    }
    migration.unpause().unwrap();
    until("the worker tidies up", || entries() == 0);
    s.contract(&migration);
}
