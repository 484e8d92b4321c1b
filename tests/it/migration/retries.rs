//! An engine that fails again and again under a migration: who waits is told, what was done is kept, and it goes on.

use exuvia::engine::EngineErrorKind;
use exuvia::migration::{Backfill, NewWrites, Waiting};
use exuvia::{Error, Phase};

use crate::kit::errors::says;
use crate::kit::hook_engine::{Call, HookEngine, elsewhere};
use crate::kit::scene::*;

/// Failures in a row after which a caller is told.
const PATIENT: u64 = 6;

fn fails(engine: &HookEngine, call: Call, times: std::ops::Range<u64>) {
    times.for_each(|n| engine.fail(call, OVERLAY, n));
}

fn assert_told(e: &Error) {
    assert!(matches!(e, Error::Engine(e) if e.kind() == EngineErrorKind::Io), "{e:?}");
    says(e, &["split", "6 times in a row", "mend the cause", "goes on where it was"]);
}

fn assert_told_again(e: &Error) {
    says(e, &["split", "7 times in a row", "mend the cause"]);
}

#[test]
fn a_wait_for_a_backfill_ends_when_the_engine_goes_on_failing() {
    let s = scene(200);
    let migration = s.begin();
    // Some is done before the first failure, and is not done again.
    fails(&s.engine, Call::Cas, 101..1000);
    migration.unpause().unwrap();
    let waiter = migration.clone();
    assert_told(&elsewhere("a wait", move || waiter.wait()).unwrap_err());
    let status = migration.status().unwrap();
    assert!(
        matches!(status.backfill, Backfill::Waiting(Waiting::Retry { tries, .. }) if u64::from(tries) == PATIENT),
        "{status:?}"
    );
    // Who waits again is told again, if nothing was mended.
    assert_told_again(&migration.wait().unwrap_err());
    // It is still tried, and goes on where it was.
    assert!(s.engine.clear() > 800);
    let writes = s.engine.writes(OVERLAY);
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
    let after = s.engine.writes(OVERLAY) - writes;
    assert!((100..190).contains(&after), "{after} writes for what was left of 200 records");
    s.check_scans_agree(0..200);
}

#[test]
fn a_wait_outlasts_a_few_failures() {
    let s = scene(20);
    let migration = s.begin();
    fails(&s.engine, Call::Cas, 5..8);
    migration.unpause().unwrap();
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
    assert_eq!(s.engine.clear(), 0, "each of them came");
    s.check_scans_agree(0..20);
}

#[test]
fn an_abandon_ends_when_the_engine_goes_on_failing() {
    let s = scene(10);
    let migration = s.begin();
    for id in 0..5 {
        s.new.put(&id, &first2(id + 20)).unwrap();
    }
    migration.rollback().unwrap();
    fails(&s.engine, Call::Commit, 3..1000);
    let plan = migration.abandon(NewWrites::Keep).unwrap();
    assert_told(&elsewhere("an abandon", move || plan.execute()).unwrap_err());
    assert_eq!(phase(&migration), Phase::Folding, "there is no way back");
    // The table is whole meanwhile, and takes writes where the engine does.
    for id in 0..10 {
        let expected = if id < 5 { first(id + 20) } else { first(id) };
        assert_eq!(s.old.get(&id).unwrap(), Some(expected), "key {id}");
    }
    s.engine.clear();
    assert_eq!(migration.wait().unwrap().phase, Phase::Abandoned);
    for id in 0..5 {
        assert_eq!(s.old.get(&id).unwrap(), Some(first(id + 20)), "key {id}");
    }
}

/// An engine that stopped cannot mend: nobody waits for it.
#[test]
fn a_wait_for_a_stopped_engine_ends_at_once() {
    let s = scene(10);
    let migration = s.begin();
    s.engine.fail_as(Call::Cas, OVERLAY, 3, EngineErrorKind::Poisoned);
    migration.unpause().unwrap();
    let waiter = migration.clone();
    let e = elsewhere("a wait", move || waiter.wait()).unwrap_err();
    assert!(matches!(e, Error::Poisoned { .. }), "{e:?}");
    says(&e, &["split", "injected", "mend the cause", "open"]);
    let status = migration.status().unwrap();
    assert!(matches!(status.backfill, Backfill::Waiting(Waiting::Failed { .. })), "{status:?}");
}

/// What cannot be mended by another try is told at once.
#[test]
fn an_abandon_ends_with_an_entry_that_cannot_be_folded() {
    let s = scene(5);
    let migration = s.begin();
    s.new.put(&3, &first2(3)).unwrap();
    migration.rollback().unwrap();
    s.engine.raw(OVERLAY).put(&3u64.to_be_bytes(), b"nonsense").unwrap();
    let plan = migration.abandon(NewWrites::Keep).unwrap();
    let e = elsewhere("an abandon", move || plan.execute()).unwrap_err();
    says(&e, &["its folding waits", "key 0x0000000000000003", "damaged", "overwrite this record"]);
    let status = migration.status().unwrap();
    assert!(matches!(status.backfill, Backfill::Waiting(Waiting::Failed { .. })), "{status:?}");
    // As it says: the record is overwritten, and the folding goes on.
    s.old.put(&3, &first(30)).unwrap();
    migration.unpause().unwrap();
    let waiter = migration.clone();
    assert_eq!(elsewhere("a wait", move || waiter.wait()).unwrap().phase, Phase::Abandoned);
    assert_eq!(s.old.get(&3).unwrap(), Some(first(30)));
    assert_eq!(s.old.len().unwrap(), 5);
}
