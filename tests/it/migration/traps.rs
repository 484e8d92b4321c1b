//! Section 7 of the design: what has bitten other systems, row by row.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use exuvia::engine::MemoryEngine;
use exuvia::laws::Cast;
use exuvia::migration::NewWrites;
use exuvia::{Budget, CastError, Error, Origin, Phase, Store, Table, Version};
use serde::{Deserialize, Serialize};

use crate::kit::hook_engine::{Call, HookEngine, elsewhere};
use crate::kit::scene::*;
use crate::kit::types::*;

/// CockroachDB #5817. The backfill has read its page; then a key of it is written at the new view, another one
/// at the old view. The page is written after that: both writes are still there.
#[test]
fn trap_backfill_overwrites_a_newer_write() {
    let s = scene(10);
    let migration = s.begin();
    let (old, new) = (s.old.clone(), s.new.clone());
    s.engine.after(Call::Scan, BASE, 1, move || {
        new.put(&3, &v2("Newer", "N", 1, Some("n@x"))).unwrap();
        old.put(&4, &v1("Newer O", 2)).unwrap();
    });
    complete(&migration);
    assert_eq!(s.engine.clear(), 0);
    assert_eq!(s.new.get(&3).unwrap(), Some(v2("Newer", "N", 1, Some("n@x"))));
    assert_eq!(s.old.get(&3).unwrap(), Some(v1("Newer N", 1)));
    assert_eq!(s.new.get(&4).unwrap(), Some(v2("Newer", "O", 2, None)));
    s.contract(&migration);
    assert_eq!(s.new.get(&3).unwrap(), Some(v2("Newer", "N", 1, Some("n@x"))));
}

/// YugabyteDB #25250. Keys are removed before the backfill, between its look at the page and its write, and
/// after it, at both views: none comes back, through restart, reopen, contract and sweep, nor by an abandon
/// that keeps new writes.
#[test]
fn trap_backfill_resurrects_a_deleted_key() {
    for keep in [false, true] {
        let s = scene(30);
        let migration = s.begin();
        s.old.remove(&1).unwrap();
        s.new.remove(&2).unwrap();
        let (old, new) = (s.old.clone(), s.new.clone());
        s.engine.after(Call::Scan, BASE, 1, move || {
            old.remove(&3).unwrap();
            new.remove(&4).unwrap();
        });
        complete(&migration);
        s.old.remove(&5).unwrap();
        s.new.remove(&6).unwrap();
        let check = |when: &str, old: Option<&Table<u64, UserV1>>, new: &Table<u64, UserV2>| {
            for id in 1..7 {
                assert_eq!(new.get(&id).unwrap(), None, "{when}, key {id}");
                assert!(old.is_none_or(|old| old.get(&id).unwrap().is_none()), "{when}, key {id}");
            }
            assert_eq!(new.len().unwrap(), 24, "{when}");
        };
        check("complete", Some(&s.old), &s.new);
        migration.restart().unwrap();
        migration.step(16).unwrap();
        check("restarted", Some(&s.old), &s.new);
        complete(&migration);
        drop(migration);
        let engine = HookEngine::new(s.engine.inner().crash_image(|_| true));
        let store = open(&engine);
        let (old, new): (_, Table<u64, UserV2>) =
            (store.table("users").unwrap(), store.table("users").unwrap());
        check("reopened", Some(&old), &new);
        let migration = store.migration("split").unwrap();
        if keep {
            migration.rollback().unwrap();
            migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
            check("abandoned", Some(&old), &new);
        } else {
            complete(&migration);
            migration.contract().unwrap().execute().unwrap();
            check("contracted", None, &new);
        }
        until("the sweep", || !store.is_sweeping());
        check("swept", None, &new);
    }
}

/// pgroll #583. Each record that the backfill writes brings two new ones from the foreground: the backfill
/// copies the base as it was at begin, and ends.
#[test]
fn trap_backfill_never_ends_under_writes() {
    let s = scene(100);
    let migration = s.store.plan("split").table(&s.new).begin().unwrap();
    let (new, next) = (s.new.clone(), AtomicU64::new(1000));
    s.engine.watch(move |call, tree| {
        if (call, tree) == (Call::Cas, OVERLAY) && std::thread::current().name() == Some("exuvia-backfill") {
            let id = next.fetch_add(2, Ordering::SeqCst);
            new.put(&id, &v2("More", "M", 1, None)).unwrap();
            new.put(&(id + 1), &v2("More", "M", 1, None)).unwrap();
        }
    });
    let status = migration.wait().unwrap();
    s.engine.unwatch();
    assert_eq!((status.phase, status.tables[0].counts.copied), (Phase::Complete, 100));
    s.contract(&migration);
}

/// gh-ost #483. A scan of the base, of any page, fails once: the backfill does not take it for the end, tries
/// again and copies everything; a contract's proof fails with it; a fold tries again.
#[test]
fn trap_an_error_is_taken_for_the_end_of_the_scan() {
    for nth in 1..4 {
        let s = scene(600);
        s.engine.fail(Call::Scan, BASE, nth);
        let migration = s.begin();
        migration.set_budget(Budget::unlimited()).unwrap();
        migration.unpause().unwrap();
        let status = migration.wait().unwrap();
        assert_eq!(s.engine.clear(), 0);
        assert_eq!((status.phase, s.engine.dump(OVERLAY).len()), (Phase::Complete, 600));
    }
    let s = scene(600);
    let migration = s.begin();
    migration.set_budget(Budget::unlimited()).unwrap();
    complete(&migration);
    for tree in [BASE, OVERLAY] {
        s.engine.fail(Call::Scan, tree, 2);
        assert!(matches!(migration.contract().unwrap().execute(), Err(Error::Engine(_))));
        assert_eq!((s.engine.clear(), s.all_old().len()), (0, 600));
    }
    for id in 0..600 {
        s.new.put(&id, &v2("New", "N", 1, None)).unwrap();
    }
    migration.rollback().unwrap();
    s.engine.fail(Call::Scan, OVERLAY, 2);
    migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
    assert_eq!(s.engine.clear(), 0);
    assert!(s.all_old().values().all(|user| *user == v1("New N", 1)));
}

/// Whether the upcast of [`CountV2`] is still the faulty one. Only one test uses it.
static FAULTY: AtomicBool = AtomicBool::new(true);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CountV1(u32);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CountV2(u64);

impl Version for CountV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for CountV2 {
    const VERSION: u32 = 2;
    type Previous = CountV1;

    fn upcast(old: CountV1) -> Result<Self, CastError> {
        if FAULTY.load(Ordering::SeqCst) && old.0 == 13 {
            return Err(CastError::new("13 is feared"));
        }
        let factor = if FAULTY.load(Ordering::SeqCst) { 100 } else { 10 };
        Ok(CountV2(u64::from(old.0) * factor))
    }

    fn downcast(&self, _last: Option<CountV1>) -> Result<CountV1, CastError> {
        u32::try_from(self.0 / 10).map(CountV1).map_err(|e| CastError::new(e.to_string()))
    }
}

/// DefraDB #4736, first answer. Half of the table was brought forward by a faulty cast, one record went to the
/// quarantine, an application wrote natively. With corrected code the derived entries are made again, the
/// quarantine is emptied, and what the application wrote is kept.
#[test]
fn trap_the_chain_is_changed_after_records_were_stamped_derived_entries_are_made_again() {
    let engine = HookEngine::new(MemoryEngine::new());
    let store = open(&engine);
    let old: Table<u64, CountV1> = store.table("counts").unwrap();
    for id in 0..20 {
        old.put(&id, &CountV1(id as u32)).unwrap();
    }
    let new: Table<u64, CountV2> = store.table("counts").unwrap();
    let migration = store.plan("tens").table(&new).paused().begin().unwrap();
    new.put(&3, &CountV2(37)).unwrap();
    old.put(&4, &CountV1(40)).unwrap();
    complete(&migration);
    assert_eq!((new.get(&5).unwrap(), new.get(&4).unwrap()), (Some(CountV2(500)), Some(CountV2(4000))));
    assert!(matches!(new.get(&13), Err(Error::Quarantined { .. })));
    assert_eq!(old.get(&13).unwrap(), Some(CountV1(13)));
    FAULTY.store(false, Ordering::SeqCst);
    migration.restart().unwrap();
    complete(&migration);
    for id in 0..20 {
        let want = match id {
            3 => 37,
            4 => 400,
            id => id * 10,
        };
        assert_eq!(new.get(&id).unwrap(), Some(CountV2(want)), "key {id}");
    }
    assert!(engine.dump("quarantine/counts").is_empty());
    migration.contract().unwrap().execute().unwrap();
    assert_eq!(new.len().unwrap(), 20);
}

mod edited {
    use super::*;

    /// As [`super::UserV1`], by someone who added a field and left the version as it was.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct UserV1 {
        pub name: String,
        pub age: u32,
        pub nick: String,
    }

    impl Version for UserV1 {
        const VERSION: u32 = 1;
        type Previous = Origin;

        fn upcast(origin: Origin) -> Result<Self, CastError> {
            origin.never()
        }

        fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
            Origin::nothing_below()
        }
    }
}

/// DefraDB #4736, second answer. A type that was changed without a new version is refused at open, with an
/// error that names the table, the version and the field.
#[test]

fn trap_the_chain_is_changed_after_records_were_stamped_fingerprints() {
    let s = scene(3);
    let refused = s.store.table::<u64, edited::UserV1>("users").unwrap_err();
    assert!(matches!(&refused, Error::Shape { version: 1, .. }), "{refused}");
    assert!(refused.to_string().contains("nick"), "{refused}");
    assert_eq!(s.all_old().len(), 3);
}

/// dittofs #1864. Records of a newer version, of an unknown format, with unknown flags or a wrong checksum, in
/// a settled table and in an overlay; an old handle after a contract: each a typed error for that key or view,
/// by get and by scan, never a record, never an absence.
#[test]
fn trap_a_newer_version_is_served_as_if_it_were_ours() {
    let s = scene(6);
    // Version 9, sealed as the format says; the record's bytes decode as version 1 as well.
    let newer = |id: u64| {
        let mut value = vec![0x10, 9];
        value.extend(bytes(&first(id)));
        let crc = crc32c(&[id.to_be_bytes().as_slice(), &value].concat());
        value.extend(crc.to_le_bytes());
        value
    };
    let plant = |tree: &str, id: u64, value: &[u8]| {
        s.engine.raw(tree).put(&id.to_be_bytes(), value).unwrap();
    };
    let damage = |tree: &str| {
        plant(tree, 1, &newer(1));
        let good = newer(2);
        plant(tree, 2, &[&[0x20], &good[1..]].concat());
        let mut flipped = good.clone();
        flipped[4] ^= 4;
        plant(tree, 2, &flipped);
        // Found under a key that it was not written for.
        plant(tree, 3, &newer(1));
        plant(tree, 4, &[]);
    };
    damage(BASE);
    let check = |when: &str| {
        for id in 1..5 {
            assert!(
                s.old.get(&id).is_err() && s.new.get(&id).is_err(),
                "{when}, key {id}: {:?}",
                s.old.get(&id)
            );
        }
        assert!(
            matches!(s.old.get(&1), Err(Error::Version { version: 9, .. } | Error::Corrupt { .. })),
            "{when}"
        );
        assert!(s.old.get(&2).unwrap_err().is_corruption() && s.old.get(&3).unwrap_err().is_corruption());
        assert!(s.old.get(&4).unwrap_err().is_corruption());
        assert_eq!(
            (s.old.get(&0).unwrap(), s.old.get(&5).unwrap()),
            (Some(first(0)), Some(first(5))),
            "{when}"
        );
        assert!(s.old.scan(..).any(|r| r.is_err()) && s.new.scan(..).any(|r| r.is_err()), "{when}");
    };
    check("settled");
    for id in 1..5 {
        s.old.put(&id, &first(id)).unwrap();
    }
    let migration = s.begin();
    complete(&migration);
    damage(OVERLAY);
    check("open");
    for id in 1..5 {
        s.new.put(&id, &first2(id)).unwrap();
    }
    s.contract(&migration);
    assert!(matches!(s.old.get(&1), Err(Error::Version { version: 1, .. })));
    assert!(matches!(s.old.scan(..).next(), Some(Err(Error::Version { version: 1, .. }))));
    assert!(matches!(s.old.put(&1, &first(1)), Err(Error::Version { version: 1, .. })));
    assert!(matches!(s.store.table::<u64, UserV1>("users"), Err(Error::Version { version: 1, .. })));
    assert_eq!(s.all_new().len(), 6);
}

/// CRC-32C bit by bit, so that the test does not lean on what it tests.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// Cambria #12, Vitess. A record that has no older form is refused when it is written, with an error that says
/// why and what to do, and nothing is written; so it cannot be found out at the rollback. A migration begun
/// one-way takes it, says so in its status, and refuses the rollback.
#[test]
fn trap_a_lossy_downcast_is_found_out_at_rollback() {
    let lossy = v2("Anna Maria", "M", 1, None);
    let s = scene(5);
    assert!(matches!(s.new.put(&1, &v2("Ann", "A", 1, Some("a@x"))), Err(Error::Version { version: 2, .. })));
    let migration = s.begin();
    let refused = s.new.put(&1, &lossy).unwrap_err();
    assert!(matches!(&refused, Error::Cast { cast: Cast::Downcast, .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("blank") && text.contains("rollback") && text.contains("one_way"), "{text}");
    assert_eq!(s.new.get(&1).unwrap(), Some(first2(1)));
    migration.rollback().unwrap();
    assert_eq!(s.all_old().len(), 5);
    assert!(s.new.put(&1, &lossy).is_err(), "also after the rollback");

    let s = scene(5);
    let migration = s.store.plan("split").table(&s.new).paused().one_way().begin().unwrap();
    s.new.put(&1, &lossy).unwrap();
    assert_eq!(s.new.get(&1).unwrap(), Some(lossy.clone()));
    assert!(migration.status().unwrap().one_way);
    assert!(matches!(s.old.get(&1), Err(Error::Version { .. })), "a typed error, not an absence");
    assert!(matches!(migration.rollback(), Err(Error::State { .. })));
    complete(&migration);
    s.contract(&migration);
    assert_eq!(s.new.get(&1).unwrap(), Some(lossy));
}

/// gh-ost revert. After any number of writes at the new view (new keys, old keys, removals, before and after
/// the backfill passed), a rollback loses none: old code reads them all. It writes; a resume loses none of that
/// either, and what only the new version holds of them is still there.
#[test]
fn trap_rollback_loses_writes_made_since() {
    let s = scene(50);
    let migration = s.begin();
    let mut want: BTreeMap<u64, UserV2> = (0..50).map(|id| (id, first2(id))).collect();
    let round = |want: &mut BTreeMap<u64, UserV2>, n: u64| {
        for id in (n..60).step_by(4) {
            let record = v2("New", &format!("R{n}"), 1, Some("n@x"));
            s.new.put(&id, &record).unwrap();
            want.insert(id, record);
        }
        s.new.remove(&(30 + n)).unwrap();
        want.remove(&(30 + n));
    };
    let old_form = |r: &UserV2| v1(&format!("{} {}", r.first, r.last), r.age);
    round(&mut want, 0);
    migration.step(25).unwrap();
    round(&mut want, 1);
    complete(&migration);
    round(&mut want, 2);
    migration.rollback().unwrap();
    assert_eq!(s.all_old(), want.iter().map(|(id, r)| (*id, old_form(r))).collect());
    // New code goes on, and is read back by both.
    round(&mut want, 3);
    assert_eq!(s.all_new(), want);
    assert_eq!(s.all_old(), want.iter().map(|(id, r)| (*id, old_form(r))).collect());
    for id in (0..60).step_by(7) {
        s.old.put(&id, &v1("Old O", 2)).unwrap();
        let email = want.get(&id).and_then(|r| r.email.clone());
        want.insert(id, v2("Old", "O", 2, email.as_deref()));
    }
    assert_eq!(s.all_new(), want);
    migration.resume().unwrap();
    assert_eq!(s.all_new(), want);
    complete(&migration);
    assert_eq!(s.all_new(), want);
    s.contract(&migration);
    assert_eq!(s.all_new(), want);
}

/// realm-java #6875. A migration over two tables; the process dies at every engine call of every verb, and
/// whatever of the last writes survives: both tables are on the same side of it.
#[test]
fn trap_a_phase_is_half_done_at_a_crash() {
    let begin = |store: &Store| {
        let users: Table<u64, UserV2> = store.table("users").unwrap();
        let accounts: Table<u64, UserV2> = store.table("accounts").unwrap();
        store.plan("both").table(&users).table(&accounts).paused().begin()
    };
    for verb in ["begin", "rollback", "contract", "discard"] {
        for nth in 1.. {
            let s = scene(2);
            let accounts: Table<u64, UserV1> = s.store.table("accounts").unwrap();
            accounts.put(&1, &first(1)).unwrap();
            let migration = (verb != "begin").then(|| begin(&s.store).unwrap());
            if let Some(migration) = &migration {
                complete(migration);
                if verb == "discard" {
                    migration.rollback().unwrap();
                }
            }
            s.engine.die_at(nth);
            let _ = match (&migration, verb) {
                (None, _) => begin(&s.store).map(|_| ()),
                (Some(m), "rollback") => m.rollback(),
                (Some(m), "contract") => m.contract().unwrap().execute(),
                (Some(m), _) => m.abandon(NewWrites::Discard).unwrap().execute(),
            };
            let survived = s.engine.clear() > 0;
            s.engine.die();
            let lost = s.engine.inner().unflushed();
            for keep in 0..=lost.min(4) {
                let engine = HookEngine::new(s.engine.inner().crash_image(|n| n < keep));
                let inventory = open(&engine).inventory().unwrap();
                let sides: Vec<_> = inventory.iter().map(|table| (table.active, table.floor)).collect();
                assert!(
                    sides.len() == 2 && sides[0] == sides[1],
                    "{verb}, call {nth}, {keep} of {lost}: {sides:?}"
                );
            }
            if survived {
                break;
            }
        }
    }
}

/// native_db, fedimint #6798. Over thousands of records, no verb, no background work and no scan asks the engine
/// for a large page or makes a large commit.
#[test]
fn trap_the_whole_table_in_memory_or_in_one_transaction() {
    const COUNT: u64 = 3000;
    for keep in [false, true] {
        // The sweep's budget is the store's; with the default one a busy machine makes it rest for minutes.
        let unpaced = options().budget(Budget::unlimited());
        let s = scene_with(unpaced, HookEngine::new(MemoryEngine::recording()), COUNT);
        s.engine.reset();
        let migration = s.begin();
        for id in 0..COUNT / 2 {
            s.old.put(&(id * 2), &v1("Old O", 1)).unwrap();
        }
        complete(&migration);
        migration.restart().unwrap();
        complete(&migration);
        assert_eq!(s.all_new().len() as u64, COUNT);
        if keep {
            migration.rollback().unwrap();
            migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
        } else {
            s.contract(&migration);
        }
        s.swept();
        let (page, commit) = s.engine.largest();
        assert!(page <= 1024 && commit <= 4, "a page of {page}, a commit of {commit}");
        assert!(s.store.verify().unwrap().is_clean());
    }
}

/// gh-ost #992. Every flush takes 50 ms. While begin, rollback, resume and contract wait for theirs, readers and
/// writers in other threads go on. And the gate is held exclusively
/// for as long as it takes to change memory.
#[test]
fn trap_cut_over_waits_behind_a_lock_for_seconds() {
    let s = scene(50);
    let (new, done) = (s.new.clone(), Arc::new(Mutex::new(Vec::new())));
    let rounds = Arc::clone(&done);
    s.engine.watch(move |call, _| {
        if call != Call::Flush || std::thread::current().name().is_some_and(|name| name.starts_with("exuvia"))
        {
            return;
        }
        let new = new.clone();
        let count = elsewhere("operations beside a flush", move || {
            let end = std::time::Instant::now() + Duration::from_millis(50);
            let mut count = 0;
            while std::time::Instant::now() < end {
                new.put(&(count % 50), &v2("Ann", "N", 1, None)).unwrap();
                assert!(new.get(&(count % 50)).unwrap().is_some());
                count += 1;
            }
            count
        });
        rounds.lock().unwrap().push(count);
    });
    let migration = s.begin();
    migration.rollback().unwrap();
    migration.resume().unwrap();
    complete(&migration);
    s.contract(&migration);
    s.engine.unwatch();
    let rounds = done.lock().unwrap().clone();
    assert!(rounds.len() >= 5 && rounds.iter().all(|count| *count > 0), "operations by flush: {rounds:?}");
    let flips = s.store.stats().unwrap().flips;
    assert!(
        flips.count() >= 5 && flips.quantile(0.2) < Duration::from_millis(5),
        "{:?}",
        flips.quantile(0.2)
    );
}

/// Begin, rollback and resume make the same engine calls, kind by kind, at 10, 1 000 and 20 000 records; each
/// of them at most two flushes.
#[test]
fn trap_cut_over_costs_do_not_grow_with_the_table() {
    let mut profiles = Vec::new();
    for count in [10, 1000, 20_000] {
        let s = scene_in(HookEngine::new(MemoryEngine::new()), count);
        let mut profile = Vec::new();
        let mut migration = None;
        for verb in ["begin", "rollback", "resume"] {
            s.engine.reset();
            match (&migration, verb) {
                (Some(m), "rollback") => exuvia::Migration::rollback(m).unwrap(),
                (Some(m), _) => m.resume().unwrap(),
                (None, _) => migration = Some(s.begin()),
            }
            let calls = s.engine.profile();
            assert!(calls.get(&Call::Flush).is_some_and(|n| (1..=2).contains(n)), "{verb}: {calls:?}");
            profile.push(calls);
        }
        profiles.push(profile);
    }
    assert_eq!(profiles[0], profiles[1]);
    assert_eq!(profiles[0], profiles[2]);
}

/// cdk #1072. A program that never saw version 2 brings a version 1 table to version 3 in one migration, the
/// chain run once; old code goes on at version 1; the version between can read and not write; and code that
/// starts above the stored version is refused with an error that names both.
#[test]
fn trap_skipping_a_release_strands_the_data() {
    let s = scene(20);
    let three: Table<u64, UserV3> = s.store.table("users").unwrap();
    let migration = s.store.plan("skip").table(&three).paused().begin().unwrap();
    let native = UserV3 {
        first: "New".into(),
        last: "N".into(),
        born: 2000,
        email: Some("n@x".into()),
        tags: vec!["t".into()],
    };
    three.put(&1, &native).unwrap();
    s.old.put(&2, &v1("Old O", 26)).unwrap();
    complete(&migration);
    assert_eq!(three.get(&1).unwrap(), Some(native));
    assert_eq!(three.get(&2).unwrap().unwrap().born, 2000);
    assert_eq!(three.get(&7).unwrap().unwrap().born, 2026 - 7);
    assert_eq!(s.old.get(&1).unwrap(), Some(v1("New N", 26)));
    assert_eq!(s.new.get(&1).unwrap(), Some(v2("New", "N", 26, None)));
    assert!(matches!(s.new.put(&1, &first2(1)), Err(Error::Version { version: 2, .. })));
    assert_eq!((three.len().unwrap(), s.all_new().len(), s.all_old().len()), (20, 20, 20));
    s.contract(&migration);
    assert_eq!(three.len().unwrap(), 20);
    assert!(matches!(s.new.get(&1), Err(Error::Version { version: 2, .. })));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Renamed {
    name: String,
    age: u32,
}

impl Version for Renamed {
    const VERSION: u32 = 2;
    type Previous = UserV1;
    const SAME_BYTES: bool = true;

    fn upcast(old: UserV1) -> Result<Self, CastError> {
        Ok(Renamed { name: old.name, age: old.age })
    }

    fn downcast(&self, _last: Option<UserV1>) -> Result<UserV1, CastError> {
        Ok(UserV1 { name: self.name.clone(), age: self.age })
    }
}

/// Such a migration has no overlay: giving it up takes back no write, and its plan does not say that it does.
#[test]
fn giving_up_a_migration_of_metadata_only_keeps_every_write() {
    for writes in [NewWrites::Keep, NewWrites::Discard] {
        let store = open(&HookEngine::new(MemoryEngine::recording()));
        let old: Table<u64, UserV1> = store.table("users").unwrap();
        (0..3).for_each(|id| old.put(&id, &first(id)).unwrap());
        let renamed: Table<u64, Renamed> = store.table("users").unwrap();
        let migration = store.plan("rename").table(&renamed).begin().unwrap();
        renamed.put(&1, &Renamed { name: "Eva New".to_owned(), age: 1 }).unwrap();
        migration.rollback().unwrap();
        let plan = migration.abandon(writes).unwrap();
        let says =
            "table users: the right to read and write version 2; no record is touched, and every write stays";
        assert_eq!(plan.destroys(), [says]);
        plan.execute().unwrap();
        assert_eq!(old.get(&1).unwrap(), Some(v1("Eva New", 1)));
        assert_eq!(old.len().unwrap(), 3);
    }
}

/// RxDB #3311. A version that changed nothing on disk: from begin to contract not one record is read by a scan
/// or written, and no second tree is made. All verbs work on it.
#[test]
fn trap_a_no_op_migration_rewrites_everything() {
    let engine = HookEngine::new(MemoryEngine::recording());
    let store = open(&engine);
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..500 {
        old.put(&id, &first(id)).unwrap();
    }
    let renamed: Table<u64, Renamed> = store.table("users").unwrap();
    engine.reset();
    let migration = store.plan("rename").table(&renamed).begin().unwrap();
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
    // A bulk load is refused at its start, and not after all of it.
    let records = std::iter::from_fn(|| -> Option<(u64, Renamed)> { panic!("no record is asked for") });
    let refused = renamed.bulk_load(records).unwrap_err();
    assert!(refused.to_string().contains("a migration of it is open"), "{refused}");
    migration.rollback().unwrap();
    migration.resume().unwrap();
    migration.wait().unwrap();
    migration.contract().unwrap().execute().unwrap();
    until("the sweep", || !store.is_sweeping());
    assert_eq!((engine.writes("1/*"), engine.count(Call::Scan, "1/*")), (0, 0));
    assert_eq!(engine.record_trees(), [BASE]);
    assert_eq!(renamed.get(&7).unwrap(), Some(Renamed { name: "Ann N7".into(), age: 7 }));
    assert_eq!(renamed.len().unwrap(), 500);
    assert!(old.get(&7).is_err());
    assert!(store.verify().unwrap().is_clean());
}

/// Spirit, gh-ost #1769. An engine error in the middle of the backfill: it waits, says so, tries again and goes
/// on where it was. A crash in the middle: the next process goes on after the persisted cursor.
#[test]
fn trap_a_transient_error_throws_progress_away() {
    let s = scene(2000);
    let migration = s.begin();
    migration.set_budget(Budget::unlimited()).unwrap();
    migration.step(1000).unwrap();
    s.engine.reset();
    s.engine.fail(Call::Cas, OVERLAY, 300);
    migration.unpause().unwrap();
    let status = migration.wait().unwrap();
    assert_eq!(s.engine.clear(), 0);
    assert_eq!((status.phase, s.engine.dump(OVERLAY).len()), (Phase::Complete, 2000));
    let inserts = s.engine.count(Call::Cas, OVERLAY);
    assert!((1000..=1400).contains(&inserts), "{inserts} inserts for the 1000 records that were left");

    let s = scene(2000);
    let migration = s.begin();
    for _ in 0..10 {
        migration.step(100).unwrap();
        s.store.flush().unwrap();
    }
    s.engine.die();
    let engine = HookEngine::new(s.engine.inner().crash_image(|_| false));
    let store = open(&engine);
    let _new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.migration("split").unwrap();
    engine.reset();
    complete(&migration);
    let inserts = engine.count(Call::Cas, OVERLAY);
    assert!((1000..=1300).contains(&inserts), "{inserts} inserts for the 1000 records that were left");
}
