//! Section 4 of the design, invariant by invariant.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use exuvia::engine::MemoryEngine;
use exuvia::migration::NewWrites;
use exuvia::{CastError, Error, Migration, Origin, Phase, Table, Version};
use serde::{Deserialize, Serialize};

use crate::kit::hook_engine::{Call, HookEngine, elsewhere};
use crate::kit::scene::*;
use crate::kit::types::*;

/// Every verb but contract and abandon, every kind of write at both views, and the backfill: the base's tree is
/// the same bytes after all of it, and no engine call even tried to change it.
#[test]
fn invariant_01_the_base_never_changes_while_a_migration_is_open() {
    let s = scene(40);
    let before = s.engine.dump(BASE);
    s.engine.reset();
    let migration = s.begin();
    let churn = || {
        for id in 0..50 {
            match id % 5 {
                0 => s.old.put(&id, &v1("Old O", 5)).unwrap(),
                1 => s.new.put(&id, &v2("New", "N", 6, Some("n@x"))).unwrap(),
                2 => s.old.remove(&id).unwrap(),
                3 => s.new.remove(&id).unwrap(),
                _ => {}
            }
        }
    };
    churn();
    migration.step(17).unwrap();
    churn();
    complete(&migration);
    migration.rollback().unwrap();
    churn();
    migration.resume().unwrap();
    migration.restart().unwrap();
    churn();
    complete(&migration);
    assert_eq!(s.engine.dump(BASE), before);
    assert_eq!(s.engine.writes(BASE), 0);
}

/// Whatever the base holds under a key, and whoever wrote its overlay entry: both views read the overlay's
/// entry if there is one, by get and by scan, and the base's record only if there is none.
#[test]
fn invariant_02_the_overlay_entry_is_the_truth_else_the_bases() {
    let s = scene(20);
    let migration = s.begin();
    let late = v2("Late", "L", 9, Some("l@x"));
    // Keys below 20 are in the base, those above are not. By the last digit: who wrote.
    let mut want: BTreeMap<u64, UserV2> = (0..20).map(|id| (id, first2(id))).collect();
    for id in 0..40 {
        match id % 10 {
            0 => s.new.put(&id, &late).unwrap(),
            1 => s.old.put(&id, &v1("Early E", 8)).unwrap(),
            2 => s.new.remove(&id).unwrap(),
            3 => s.old.remove(&id).unwrap(),
            4 => {
                s.new.put(&id, &late).unwrap();
                s.old.put(&id, &v1("Early E", 8)).unwrap();
            }
            5 => {
                s.new.put(&id, &late).unwrap();
                s.old.remove(&id).unwrap();
            }
            6 => {
                s.old.remove(&id).unwrap();
                s.new.put(&id, &late).unwrap();
            }
            _ => continue,
        }
        match id % 10 {
            0 | 6 => want.insert(id, late.clone()),
            1 => want.insert(id, v2("Early", "E", 8, None)),
            4 => want.insert(id, v2("Early", "E", 8, Some("l@x"))),
            _ => want.remove(&id),
        };
    }
    for stop in [0, 7, 13, 1000] {
        if stop > 0 {
            migration.step(stop).unwrap();
        }
        assert_eq!(s.all_new(), want, "after a step of {stop}");
        let old: BTreeMap<_, _> =
            want.iter().map(|(id, r)| (*id, v1(&format!("{} {}", r.first, r.last), r.age))).collect();
        assert_eq!(s.all_old(), old, "after a step of {stop}");
        s.check_scans_agree(0..45);
    }
}

/// A program that knows version 1 only opens the store in the middle of a migration, after new code wrote,
/// overwrote and removed: it reads every live record, by get and by scan.
#[test]
fn invariant_03_every_live_key_can_be_read_at_from_without_newer_code() {
    for copied in [0, 10, 1000] {
        let s = scene(30);
        let migration = s.begin();
        if copied > 0 {
            migration.step(copied).unwrap();
        }
        let mut want: BTreeMap<u64, UserV1> = (0..30).map(|id| (id, first(id))).collect();
        for id in (0..40).step_by(3) {
            s.new.put(&id, &v2("New", "N", 6, Some("n@x"))).unwrap();
            want.insert(id, v1("New N", 6));
        }
        s.new.remove(&4).unwrap();
        want.remove(&4);
        s.new.remove(&6).unwrap();
        want.remove(&6);
        if copied > 0 {
            complete(&migration);
        }
        s.store.close().unwrap();
        let engine = HookEngine::new(s.engine.inner().clone());
        let store = open(&engine);
        let old: Table<u64, UserV1> = store.table("users").unwrap();
        assert_eq!(old.scan(..).map(Result::unwrap).collect::<BTreeMap<_, _>>(), want);
        assert!((0..45).all(|id| old.get(&id).unwrap() == want.get(&id).cloned()));
    }
}

/// Looked at by the bytes on the engine: the main form of each derived entry is exactly what the upcast makes
/// of its companion, or else of the base's record; and entries that applications wrote are not marked derived.
#[test]
fn invariant_04_a_derived_entry_is_the_upcast_of_its_source_byte_for_byte() {
    let s = scene(30);
    let migration = s.begin();
    s.new.put(&1, &v2("New", "N", 6, None)).unwrap();
    s.old.put(&2, &v1("Old O", 5)).unwrap();
    s.new.put(&3, &v2("New", "N", 6, Some("n@x"))).unwrap();
    s.old.put(&3, &v1("Old O", 5)).unwrap();
    complete(&migration);
    s.old.put(&4, &v1("Older O", 7)).unwrap();
    complete(&migration);
    let mut derived = [0, 0];
    for id in 0..30 {
        let entry = s.entry(OVERLAY, id).expect("every key of the base has an overlay entry");
        if entry.flags & DERIVED == 0 {
            assert!(id == 1 || id == 3, "key {id} is derived, and not marked so: {entry:?}");
            continue;
        }
        let source = match &entry.companion {
            Some((1, bytes)) => bytes.clone(),
            Some(other) => panic!("key {id}: a companion of another version: {other:?}"),
            None => s.entry(BASE, id).unwrap().main,
        };
        derived[usize::from(entry.companion.is_some())] += 1;
        let want = UserV2::upcast(UserV1::decode(&source).unwrap()).unwrap();
        assert_eq!((entry.version, entry.main), (2, bytes(&want)), "key {id}");
    }
    assert_eq!(derived, [26, 2], "from the base, from companions");
}

/// Between the backfill's look at a key and its write, someone else writes or removes that key, at either view:
/// the backfill's write does not happen. Run once more over everything, it changes nothing.
#[test]
fn invariant_05_backfill_inserts_into_nothing_or_replaces_exactly_what_it_read() {
    let s = scene(12);
    let migration = s.begin();
    // What old writers wrote is brought forward; new ones, the backfill copies.
    for id in 6..12 {
        s.old.put(&id, &v1("Old O", 5)).unwrap();
    }
    for id in 0..12 {
        let (old, new) = (s.old.clone(), s.new.clone());
        // The copy's insert; for keys of old writers the second compare-and-set is the one that brings forward.
        let nth = if id < 6 { 1 } else { 2 };
        let disturb = move || match id % 3 {
            0 => new.put(&id, &v2("Newer", "N", 1, Some("n@x"))).unwrap(),
            1 => old.put(&id, &v1("Older O", 2)).unwrap(),
            _ => new.remove(&id).unwrap(),
        };
        let engine = s.engine.clone();
        if nth == 1 {
            engine.before_key(Call::Cas, OVERLAY, id, disturb);
        } else {
            let inner = engine.clone();
            engine
                .after_key(Call::Cas, OVERLAY, id, move || inner.before_key(Call::Cas, OVERLAY, id, disturb));
        }
    }
    complete(&migration);
    assert_eq!(s.engine.clear(), 0, "every disturbance came to pass");
    for id in 0..12 {
        let (old, new) = match id % 3 {
            0 => (Some(v1("Newer N", 1)), Some(v2("Newer", "N", 1, Some("n@x")))),
            1 => (Some(v1("Older O", 2)), Some(v2("Older", "O", 2, None))),
            _ => (None, None),
        };
        assert_eq!(s.old.get(&id).unwrap(), old, "key {id}");
        assert_eq!(s.new.get(&id).unwrap(), new, "key {id}");
    }
    let before = s.engine.dump(OVERLAY);
    s.engine.reset();
    complete(&migration);
    assert_eq!((s.engine.dump(OVERLAY), s.engine.writes(OVERLAY)), (before, 0));
}

/// Writes at the new view, of old keys and of any number of new ones, give the backfill nothing to do: it ends
/// after as many records as the base had at begin. What old writers wrote is shown as a backlog; under the
/// contract's fence it ends too, although an old writer never stops by itself.
#[test]
fn invariant_06_copying_is_finite_and_the_backlog_is_shown() {
    let s = scene(64);
    let migration = s.begin();
    let mut steps = 0u64;
    while migration.step(1).unwrap().phase != Phase::Complete {
        for id in 0..4 {
            s.new.put(&(1000 + steps * 4 + id), &v2("New", "N", 1, None)).unwrap();
            s.new.put(&(steps % 64), &v2("New", "N", 2, None)).unwrap();
        }
        steps += 1;
        assert!(steps <= 65, "new records made work for the backfill");
    }
    assert_eq!(migration.status().unwrap().tables[0].counts.copied, 64);
    for id in 0..5 {
        s.old.put(&id, &v1("Old O", 5)).unwrap();
    }
    let status = migration.status().unwrap();
    assert_eq!((status.tables[0].backlog, status.phase), (5, Phase::Open));

    let (writer, written) = (s.old.clone(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&written);
    let thread = std::thread::spawn(move || {
        loop {
            let n = count.load(Ordering::Relaxed);
            match writer.put(&(n % 64), &v1(&format!("Old O{n}"), 5)) {
                Ok(()) => count.store(n + 1, Ordering::Relaxed),
                Err(e) => return e,
            }
        }
    });
    until("the old writer", || written.load(Ordering::Relaxed) > 100);
    s.contract(&migration);
    assert!(matches!(thread.join().unwrap(), Error::Version { version: 1, .. }));
    let last = written.load(Ordering::Relaxed) - 1;
    assert_eq!(s.new.get(&(last % 64)).unwrap(), Some(v2("Old", &format!("O{last}"), 5, None)));
}

/// A verb of a migration, in the state that it needs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verb {
    Begin,
    Pause,
    Restart,
    Rollback,
    RollbackFenced,
    Resume,
    Contract,
    Keep,
    Discard,
}

const VERBS: [Verb; 9] = [
    Verb::Begin,
    Verb::Pause,
    Verb::Restart,
    Verb::Rollback,
    Verb::RollbackFenced,
    Verb::Resume,
    Verb::Contract,
    Verb::Keep,
    Verb::Discard,
];

impl Verb {
    /// Brings a scene to where the verb can be called, with writes of every kind, all of them flushed.
    fn prepare(self, s: &Scene) -> Option<Migration> {
        if self == Verb::Begin {
            s.store.flush().unwrap();
            return None;
        }
        let migration = s.begin();
        s.new.put(&1, &v2("New", "N", 6, Some("n@x"))).unwrap();
        s.old.put(&2, &v1("Old O", 5)).unwrap();
        s.new.put(&3, &v2("New", "N", 6, Some("n@x"))).unwrap();
        s.old.put(&3, &v1("Old O", 5)).unwrap();
        complete(&migration);
        s.old.put(&4, &v1("Older O", 7)).unwrap();
        s.new.remove(&5).unwrap();
        s.new.put(&100, &v2("Extra", "E", 1, Some("e@x"))).unwrap();
        if matches!(self, Verb::Resume | Verb::Keep | Verb::Discard) {
            migration.rollback().unwrap();
        }
        s.store.flush().unwrap();
        Some(migration)
    }

    fn call(self, s: &Scene, migration: Option<&Migration>) -> exuvia::Result<()> {
        match (self, migration) {
            (Verb::Begin, _) => s.store.plan("split").table(&s.new).paused().begin().map(|_| ()),
            (_, None) => panic!("no migration"),
            (Verb::Pause, Some(m)) => m.pause(),
            (Verb::Restart, Some(m)) => m.restart(),
            (Verb::Rollback, Some(m)) => m.rollback(),
            (Verb::RollbackFenced, Some(m)) => m.rollback_fenced(),
            (Verb::Resume, Some(m)) => m.resume(),
            (Verb::Contract, Some(m)) => m.contract()?.execute(),
            (Verb::Keep, Some(m)) => m.abandon(NewWrites::Keep)?.execute(),
            (Verb::Discard, Some(m)) => m.abandon(NewWrites::Discard)?.execute(),
        }
    }

    /// The phases that may be found after a failure, and the entry that tells of the last one.
    fn outcomes(self) -> (Vec<Option<Phase>>, &'static str) {
        let (before, after, what) = match self {
            Verb::Begin => (None, Phase::Open, "begin"),
            Verb::Pause => (Some(Phase::Open), Phase::Open, "pause"),
            Verb::Restart => (Some(Phase::Open), Phase::Open, "restart"),
            Verb::Rollback | Verb::RollbackFenced => (Some(Phase::Open), Phase::RolledBack, "rollback"),
            Verb::Resume => (Some(Phase::RolledBack), Phase::Open, "resume"),
            Verb::Contract => (Some(Phase::Open), Phase::Contracted, "contract"),
            Verb::Keep => {
                let phases = [Phase::RolledBack, Phase::Folding, Phase::Abandoned];
                return (phases.map(Some).to_vec(), "abandon");
            }
            Verb::Discard => (Some(Phase::RolledBack), Phase::Abandoned, "abandon"),
        };
        (vec![before, Some(after)], what)
    }
}

/// During every engine call of every verb, a writer in another thread gets through: so no engine call and no
/// flush is made with the gate held exclusively. At the flush, memory still answers by the old phase, and a
/// verb makes one commit of the catalog and one flush: the phase is durable before it is in force.
#[test]
fn invariant_07_a_phase_is_one_durable_commit_before_a_flip_in_memory() {
    for verb in VERBS {
        let s = scene(20);
        let migration = verb.prepare(&s);
        let (new, old, calls) = (s.new.clone(), s.old.clone(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&calls);
        let busy = AtomicBool::new(false);
        s.engine.watch(move |call, tree| {
            if busy.swap(true, Ordering::SeqCst) {
                return;
            }
            let n = counted.fetch_add(1, Ordering::SeqCst);
            let (new, old) = (new.clone(), old.clone());
            elsewhere(&format!("a writer beside {call:?} {tree} of {verb:?}"), move || {
                // One of them is refused in some phases; that is no wait.
                let _ = new.put(&(200 + n % 3), &v2("Beside", "B", 3, None));
                let _ = old.put(&(210 + n % 3), &v1("Beside B", 3));
            });
            busy.store(false, Ordering::SeqCst);
        });
        verb.call(&s, migration.as_ref()).unwrap();
        s.engine.unwatch();
        assert!(calls.load(Ordering::SeqCst) > 0, "{verb:?}");
    }
    // At the flush: the rollback is committed but not durable, so a fence that it brings is not yet up.
    let s = scene(20);
    let migration = s.begin();
    let (new, during) = (s.new.clone(), Arc::new(Mutex::new(None)));
    let result = Arc::clone(&during);
    s.engine.before(Call::Flush, "*", 1, move || {
        *result.lock().unwrap() = Some(new.put(&1, &v2("Beside", "B", 3, None)));
    });
    s.engine.reset();
    let before = s.store.stats().unwrap().flushes;
    migration.rollback_fenced().unwrap();
    let during = during.lock().unwrap().take().expect("the flush was reached");
    during.expect("the fence was up before the rollback was durable");
    assert!(s.new.put(&1, &v2("After", "A", 3, None)).is_err());
    assert_eq!(s.engine.count(Call::Cas, CATALOG) + s.engine.count(Call::Commit, CATALOG), 1);
    assert_eq!(s.store.stats().unwrap().flushes - before, 1);
}

/// What the casts of [`ProbeV1`] and [`ProbeV2`] run; only the test of I8 uses them.
type Probe = Box<dyn Fn(&'static str) + Send + Sync>;
static PROBE: Mutex<Option<Arc<Probe>>> = Mutex::new(None);

fn probe(what: &'static str) {
    let probe = PROBE.lock().unwrap().clone();
    if let Some(probe) = probe {
        probe(what);
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ProbeV1(u32);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ProbeV2(u64);

impl Version for ProbeV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }

    fn validate(&self) -> Result<(), CastError> {
        probe("validate of version 1");
        Ok(())
    }
}

impl Version for ProbeV2 {
    const VERSION: u32 = 2;
    type Previous = ProbeV1;
    const DROPS_FIELDS: bool = true;

    fn upcast(old: ProbeV1) -> Result<Self, CastError> {
        probe("upcast");
        Ok(ProbeV2(u64::from(old.0)))
    }

    fn downcast(&self, _last: Option<ProbeV1>) -> Result<ProbeV1, CastError> {
        probe("downcast");
        u32::try_from(self.0).map(ProbeV1).map_err(|e| CastError::new(e.to_string()))
    }

    fn merge(old: ProbeV1, _last: ProbeV2) -> Result<Option<Self>, CastError> {
        probe("merge");
        Ok(Some(ProbeV2(u64::from(old.0))))
    }

    fn validate(&self) -> Result<(), CastError> {
        probe("validate of version 2");
        Ok(())
    }
}

/// While user code runs, another thread reads, writes and scans the same table, asks for the migration's status
/// and turns another migration round (which takes the gate exclusively): whatever called the user code, and
/// whichever function it is, nothing of that waits for it.
#[test]
fn invariant_08_user_code_runs_under_no_lock_or_gate() {
    let engine = HookEngine::new(MemoryEngine::new());
    let store = open(&engine);
    let old: Table<u64, ProbeV1> = store.table("probes").unwrap();
    for id in 0..8 {
        old.put(&id, &ProbeV1(7)).unwrap();
    }
    let new: Table<u64, ProbeV2> = store.table("probes").unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    users.put(&1, &v1("Ann A", 1)).unwrap();
    let users: Table<u64, UserV2> = store.table("users").unwrap();
    let other = store.plan("other").table(&users).paused().begin().unwrap();

    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let during = Arc::new(Mutex::new(String::new()));
    let plan = store.plan("probing").table(&new).paused();
    let (counts, name, inside) = (Arc::clone(&seen), Arc::clone(&during), AtomicBool::new(false));
    let (old2, new2, other2) = (old.clone(), new.clone(), other.clone());
    let store2 = store.clone();
    *PROBE.lock().unwrap() = Some(Arc::new(Box::new(move |cast| {
        if inside.swap(true, Ordering::SeqCst) {
            return;
        }
        let what = format!("{cast} in {}", name.lock().unwrap());
        *counts.lock().unwrap().entry(what.clone()).or_insert(0) += 1;
        let (old, new, other, store) = (old2.clone(), new2.clone(), other2.clone(), store2.clone());
        elsewhere(&what, move || {
            other.rollback().unwrap();
            other.resume().unwrap();
            new.put(&50, &ProbeV2(1)).unwrap();
            old.get(&3).unwrap();
            new.get(&3).unwrap();
            // Refused under the contract's fence; it does not wait.
            let _ = old.put(&51, &ProbeV1(1));
            old.remove(&51).or_else(|_| new.remove(&51)).unwrap();
            assert!(new.scan(..).count() > 0);
            store.stats().unwrap();
        });
        inside.store(false, Ordering::SeqCst);
    })));
    let run = |what: &str, work: &dyn Fn()| {
        what.clone_into(&mut during.lock().unwrap());
        work();
    };
    run("settled get", &|| assert_eq!(new.get(&1).unwrap(), Some(ProbeV2(7))));
    run("settled put", &|| new.put(&1, &ProbeV2(7)).unwrap());
    let migration = plan.begin().unwrap();
    run("open get", &|| assert_eq!(new.get(&1).unwrap(), Some(ProbeV2(7))));
    run("open put at to", &|| new.put(&1, &ProbeV2(8)).unwrap());
    run("open put at from", &|| old.put(&1, &ProbeV1(9)).unwrap());
    run("merging get", &|| assert_eq!(new.get(&1).unwrap(), Some(ProbeV2(9))));
    run("scan", &|| assert!(new.scan(..).all(|r| r.is_ok())));
    run("backfill", &|| {
        complete(&migration);
    });
    run("restart", &|| {
        migration.restart().unwrap();
        complete(&migration);
    });
    old.put(&2, &ProbeV1(9)).unwrap();
    run("contract", &|| migration.contract().unwrap().execute().unwrap());
    *PROBE.lock().unwrap() = None;
    let seen = seen.lock().unwrap();
    for what in [
        "upcast in settled get",
        "downcast in settled put",
        "upcast in open get",
        "downcast in open put at to",
        "validate of version 2 in open put at to",
        "validate of version 1 in open put at from",
        "merge in merging get",
        "upcast in scan",
        "upcast in backfill",
        "merge in backfill",
        "upcast in contract",
    ] {
        // Old writers are bound by the rules of the version that is active, which their code does not know.
        let expected = what != "validate of version 1 in open put at from";
        assert_eq!(seen.contains_key(what), expected, "{what}: {seen:?}");
    }
    assert_eq!(new.get(&1).unwrap(), Some(ProbeV2(9)));
}

/// What both views must read after a verb failed somewhere and the store was opened again.
struct Expected {
    old: BTreeMap<u64, UserV1>,
    new: BTreeMap<u64, UserV2>,
    at_begin: BTreeMap<u64, UserV1>,
}

impl Expected {
    fn of(s: &Scene) -> Self {
        let at_begin = (0..8).map(|id| (id, first(id))).collect();
        Expected { old: s.all_old(), new: s.all_new(), at_begin }
    }

    /// Opens what a failure left and looks at everything.
    fn check(&self, verb: Verb, image: &MemoryEngine, how: &str) {
        let engine = HookEngine::new(image.clone());
        let store = open(&engine);
        let (phases, what) = verb.outcomes();
        let found = store.migration("split").ok().map(|m| m.status().unwrap().phase);
        assert!(phases.contains(&found), "{verb:?}, {how}: {found:?}");
        let entries = store.ledger().unwrap();
        if verb == Verb::Keep {
            // Opened, the fold goes on by itself: the closing entry may be younger than the look at the phase.
            let told = entries.iter().any(|entry| entry.what == "fold");
            assert_eq!(told, found != Some(Phase::RolledBack), "{verb:?}, {how}: {found:?}, {entries:?}");
        } else if phases.first() != phases.last() {
            let told = entries.iter().any(|entry| entry.what == what);
            assert_eq!(told, found == *phases.last().unwrap(), "{verb:?}, {how}: {found:?}, {entries:?}");
        }
        let new: Table<u64, UserV2> = store.table("users").unwrap();
        let all_new = || new.scan(..).map(Result::unwrap).collect::<BTreeMap<_, _>>();
        let discarded = verb == Verb::Discard && found == Some(Phase::Abandoned);
        let want_old = if discarded { &self.at_begin } else { &self.old };
        let dropped = verb == Verb::Keep && found != Some(Phase::RolledBack);
        if !discarded && !dropped {
            assert_eq!(all_new(), self.new, "{verb:?}, {how}");
            assert!(
                self.new.iter().all(|(id, r)| new.get(id).unwrap().as_ref() == Some(r)),
                "{verb:?}, {how}"
            );
            assert_eq!(new.get(&5).unwrap().is_some(), self.new.contains_key(&5));
        }
        if found == Some(Phase::Contracted) {
            assert!(store.table::<u64, UserV1>("users").is_err());
        } else {
            let old: Table<u64, UserV1> = store.table("users").unwrap();
            assert_eq!(
                &old.scan(..).map(Result::unwrap).collect::<BTreeMap<_, _>>(),
                want_old,
                "{verb:?}, {how}"
            );
            for id in 0..101 {
                assert_eq!(old.get(&id).unwrap().as_ref(), want_old.get(&id), "{verb:?}, {how}, key {id}");
            }
        }
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{verb:?}, {how}: {report:?}");
        // From there the migration can be brought to an end, and nothing is lost on the way.
        if let Ok(migration) = store.migration("split") {
            if found == Some(Phase::RolledBack) {
                migration.resume().unwrap();
            }
            if matches!(found, Some(Phase::Open | Phase::RolledBack)) {
                complete(&migration);
                migration.contract().unwrap().execute().unwrap();
                assert_eq!(all_new(), self.new, "{verb:?}, {how}, contracted");
            } else {
                let status = migration.wait().unwrap();
                assert!(status.phase.is_closed(), "{verb:?}, {how}");
            }
        }
    }
}

/// Every verb, interrupted at every one of its engine calls: once by an error of that call only, once by the
/// death of the process there, once by a loss of power there that kept any of several subsets of what was not
/// flushed. Opened again, the phase is the one before or the one after, the ledger agrees with it, every
/// acknowledged write is there at both views, and the migration can be brought to its end.
#[test]
fn invariant_09_after_any_crash_acknowledged_writes_and_a_whole_phase() {
    for verb in VERBS {
        let mut nth = 1;
        loop {
            let mut ended = false;
            for die in [false, true] {
                let s = scene(8);
                let migration = verb.prepare(&s);
                s.swept();
                let expected = Expected::of(&s);
                if die {
                    s.engine.die_at(nth);
                } else {
                    s.engine.fail_any(nth);
                }
                let result = verb.call(&s, migration.as_ref());
                ended |= s.engine.clear() > 0;
                s.engine.die();
                let how = format!("call {nth}, {}: {result:?}", if die { "death" } else { "error" });
                let inner = s.engine.inner();
                let lost = inner.unflushed();
                let subsets: [&dyn Fn(usize) -> bool; 6] =
                    [&|_| false, &|_| true, &|n| n % 2 == 0, &|n| n % 2 == 1, &|n| n + 1 == lost, &|n| {
                        n + 1 != lost
                    }];
                for (which, keep) in subsets.iter().enumerate() {
                    if which == 1 || (die && (which == 0 || lost > 1)) {
                        let image = inner.crash_image(keep);
                        expected.check(verb, &image, &format!("{how}, subset {which} of {lost}"));
                    }
                }
            }
            if ended {
                break;
            }
            nth += 1;
            assert!(nth < 500);
        }
        assert!(nth > 4, "{verb:?} makes engine calls");
    }
}

/// Contract refuses, names the key and destroys nothing: with a record in quarantine, and with a base key that
/// has no overlay entry (removed here behind the store's back). A write of old code that was in flight when the
/// fence went up is brought forward. No other verb deletes or drops anything of base or overlay that is native.
#[test]
fn invariant_10_contract_only_with_proof_and_only_contract_and_abandon_destroy() {
    let s = scene(20);
    s.old.put(&7, &v1("Nameless", 1)).unwrap();
    s.engine.reset();
    let migration = s.begin();
    complete(&migration);
    let refused = migration.contract().unwrap().execute().unwrap_err().to_string();
    assert!(refused.contains("quarantine") && refused.contains("last name"), "{refused}");
    assert_eq!(s.old.get(&7).unwrap(), Some(v1("Nameless", 1)));
    s.old.put(&1, &v1("Fence Lifted", 1)).unwrap();
    migration.rollback().unwrap();
    migration.resume().unwrap();
    s.old.put(&7, &v1("Named N", 1)).unwrap();
    complete(&migration);

    let overlay = s.engine.raw(OVERLAY);
    let key = 11u64.to_be_bytes();
    let taken = overlay.get(&key).unwrap().unwrap();
    overlay.delete(&key).unwrap();
    let refused = migration.contract().unwrap().execute().unwrap_err().to_string();
    assert!(refused.contains("left behind") && refused.contains("0x000000000000000b"), "{refused}");
    overlay.put(&key, &taken).unwrap();
    assert_eq!(s.all_old().len(), 20);
    assert_eq!(s.engine.writes(BASE) + s.engine.count(Call::Drop, "*"), 0, "nothing was destroyed");

    // In flight: past its checks and in the engine when the fence is raised.
    let plan = migration.contract().unwrap();
    let contract = Arc::new(Mutex::new(None));
    let (handle, old) = (Arc::clone(&contract), s.old.clone());
    s.engine.before_key(Call::Cas, OVERLAY, 12, move || {
        *handle.lock().unwrap() = Some(std::thread::spawn(move || plan.execute()));
        std::thread::sleep(std::time::Duration::from_millis(20));
    });
    old.put(&12, &v1("In Flight", 1)).unwrap();
    let contract = contract.lock().unwrap().take().unwrap();
    contract.join().unwrap().unwrap();
    assert_eq!(s.new.get(&12).unwrap(), Some(v2("In", "Flight", 1, None)));
    assert_eq!(s.new.len().unwrap(), 20);
    assert!(s.store.verify().unwrap().is_clean());
}

/// Of either side: what the other page does not reach is not proven by it.
#[test]
fn invariant_12_an_empty_page_that_is_not_the_end_is_no_proof() {
    let s = scene(10);
    let migration = s.begin();
    complete(&migration);
    for tree in [BASE, OVERLAY] {
        let plan = migration.contract().unwrap();
        s.engine.blank(tree);
        let refused = plan.execute();
        assert!(matches!(refused, Err(Error::Engine(_))), "{tree}: {refused:?}");
        assert_eq!(phase(&migration), Phase::Complete);
    }
    s.contract(&migration);
}

/// Every verb appends exactly one entry, in the same commit as the change itself: cut off right after that
/// commit, either both are there or neither.
#[test]
fn invariant_11_every_state_change_appends_one_ledger_entry_in_its_commit() {
    for verb in VERBS {
        let s = scene(8);
        let migration = verb.prepare(&s);
        s.swept();
        let before = s.ledger();
        let revisions = Arc::new(Mutex::new(Vec::new()));
        let (engine, images) = (s.engine.clone(), Arc::clone(&revisions));
        s.engine.after(Call::Cas, CATALOG, 1, move || {
            let inner = engine.inner();
            let last = inner.unflushed() - 1;
            for keep in [last, last + 1] {
                images.lock().unwrap().push(inner.crash_image(|n| n < keep));
            }
        });
        verb.call(&s, migration.as_ref()).unwrap();
        let verb_name = verb.outcomes().1;
        let entries: Vec<String> = s.ledger().split_off(before.len());
        let entries: Vec<&str> = entries.iter().map(String::as_str).filter(|what| *what != "sweep").collect();
        let want = if verb == Verb::Keep { vec!["fold", "abandon"] } else { vec![verb_name] };
        assert_eq!(entries, want, "{verb:?}");
        let images = std::mem::take(&mut *revisions.lock().unwrap());
        for (image, applied) in images.iter().zip([false, true]) {
            let store = open(&HookEngine::new(image.clone()));
            let told = store.ledger().unwrap().len() - before.len();
            assert_eq!(told >= 1, applied, "{verb:?}");
            let (phases, _) = verb.outcomes();
            let found = store.migration("split").ok().map(|m| m.status().unwrap().phase);
            if phases[0] != phases[1] {
                assert_eq!(found == phases[0], !applied, "{verb:?}: {found:?}");
            }
            assert!(store.verify().unwrap().is_clean());
        }
    }
}

/// The engine fails on any page of a scan, of the overlay or of the base, forward or backward: the scan gives
/// what it had, then that error, then nothing more. `len` fails too and is not a smaller number. A damaged
/// record is such an error as well.
#[test]
fn invariant_12_an_error_ends_a_scan_with_that_error() {
    let s = scene(600);
    let migration = s.begin();
    migration.step(300).unwrap();
    let mut failed = 0;
    for tree in [BASE, OVERLAY] {
        for reverse in [false, true] {
            for nth in 1..20 {
                s.engine.fail(Call::Scan, tree, nth);
                let mut items: Vec<_> =
                    if reverse { s.old.scan(..).rev().collect() } else { s.old.scan(..).collect() };
                if s.engine.clear() > 0 {
                    assert_eq!(items.len(), 600);
                    break;
                }
                failed += 1;
                let last = items.pop().unwrap();
                assert!(matches!(last, Err(Error::Engine(_))), "{tree} {nth}: {last:?}");
                assert!(items.len() < 600 && items.iter().all(Result::is_ok));
                s.engine.fail(Call::Scan, tree, nth);
                assert!(matches!(s.old.len(), Err(Error::Engine(_))));
                s.engine.clear();
            }
        }
    }
    assert!(failed >= 12, "pages that failed: {failed}");
    let key = 450u64.to_be_bytes();
    let base = s.engine.raw(BASE);
    let mut damaged = base.get(&key).unwrap().unwrap().to_vec();
    damaged[3] ^= 1;
    base.put(&key, &damaged).unwrap();
    for reverse in [false, true] {
        let mut scan = s.new.scan(..);
        let mut step = || if reverse { scan.next_back() } else { scan.next() };
        let mut good = 0;
        let error = loop {
            match step() {
                Some(Ok(_)) => good += 1,
                Some(Err(e)) => break e,
                None => panic!("the damage was taken for the end"),
            }
        };
        assert!(error.is_corruption(), "{error}");
        assert_eq!(good, if reverse { 149 } else { 450 });
        assert!(step().is_none(), "nothing comes after the error");
    }
}
