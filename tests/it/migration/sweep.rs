//! What a closed migration leaves behind goes, once and whole.

use exuvia::Store;

use crate::kit::hook_engine::{Beside, Call, HookEngine};
use crate::kit::scene::*;

/// What a sweep removed is counted, and it is swept once: neither the rest of the process nor a reopen does it again.
#[test]
fn a_sweep_is_of_what_is_left_over_and_is_done_once() {
    let s = scene(20);
    let migration = s.begin();
    complete(&migration);
    // A companion, a tombstone, a companion that is derived, and derived entries.
    s.new.put(&1, &first2(100)).unwrap();
    s.new.remove(&2).unwrap();
    s.old.put(&3, &first(100)).unwrap();
    complete(&migration);
    let before = s.engine.dump(OVERLAY);
    let derived = |bytes: &[u8]| raw(bytes).flags == DERIVED && raw(bytes).companion.is_none();
    assert_eq!(before.values().filter(|bytes| derived(bytes)).count(), 17);
    assert_eq!(before.values().filter(|bytes| raw(bytes).companion.is_some()).count(), 2);
    s.contract(&migration);
    s.swept();
    let after = s.engine.dump(OVERLAY);
    assert_eq!(after.len(), 19);
    for (key, bytes) in &after {
        match before.get(key).filter(|bytes| derived(bytes)) {
            Some(same) => assert_eq!(bytes, same, "nothing was to go, and so nothing is written"),
            None => assert!(raw(bytes).flags == 0 && raw(bytes).companion.is_none(), "{:?}", raw(bytes)),
        }
    }
    let sweeps = |store: &Store| {
        let ledger = store.ledger().unwrap().into_iter();
        ledger.filter(|entry| entry.what == "sweep").map(|entry| entry.counts[0].1).collect::<Vec<_>>()
    };
    assert_eq!(sweeps(&s.store), [3]);
    assert_eq!(s.store.inventory().unwrap()[0].derived, 0, "it means nothing in a settled table");
    s.store.close().unwrap();
    let again = open(&s.engine);
    until("the sweep", || !again.is_sweeping());
    assert_eq!(sweeps(&again), [3]);
}

/// A sweep that a close stops is not done, and the next open does the rest.
#[test]
fn a_sweep_that_is_stopped_goes_on_at_the_next_open() {
    let s = scene(100);
    let migration = s.begin();
    complete(&migration);
    (0..100).for_each(|id| s.new.put(&id, &first2(id)).unwrap());
    let left = |engine: &HookEngine| {
        engine.dump(OVERLAY).values().filter(|bytes| raw(bytes).companion.is_some()).count()
    };
    assert_eq!(left(&s.engine), 100);
    let closing = Beside::new();
    let (store, table) = (s.store.clone(), s.new.clone());
    // The close waits for the sweep; this goes on when it has begun.
    let close = closing.hook(move || store.close());
    s.engine.before(Call::Cas, OVERLAY, 3, move || {
        close();
        until("the close", || table.get(&1).is_err());
    });
    s.contract(&migration);
    s.swept();
    closing.join().unwrap();
    assert!(left(&s.engine) > 0);
    let again = open(&s.engine);
    until("the sweep", || !again.is_sweeping());
    assert_eq!(left(&s.engine), 0);
}
