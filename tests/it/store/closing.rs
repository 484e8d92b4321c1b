//! A close lets go of the directory whatever handles are alive, and whatever is in flight.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use exuvia::engine::EngineKind;
use exuvia::measure::{LedgerEntry, Observer};
use exuvia::{Error, Store, Table};

use crate::kit::kinds::kinds;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

type Old = Table<u64, UserV1>;
type New = Table<u64, UserV2>;

fn open(kind: EngineKind, path: &Path) -> Store {
    Store::options().engine(kind).free_bytes_min(0).open(path).unwrap()
}

/// A store with a thousand users.
fn users(kind: EngineKind, path: &Path) -> (Store, Old) {
    let store = open(kind, path);
    let old: Old = store.table("users").unwrap();
    old.bulk_load((0..1000).map(|id| (id, v1(&format!("Ann N{id}"), 30)))).unwrap();
    (store, old)
}

fn is_closed<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Closed))
}

/// Opens it at once, with no second try: nobody has it open any more.
fn opens(kind: EngineKind, path: &Path) {
    let store = open(kind, path);
    let old: Old = store.table("users").unwrap();
    assert!(old.len().unwrap() >= 1000);
    old.put(&5000, &v1("Zoe Z", 3)).unwrap();
    assert!(store.verify().unwrap().is_clean());
    store.close().unwrap();
}

#[test]
fn a_closed_store_opens_again_while_every_kind_of_handle_lives() {
    let scratch = Scratch::new("closing");
    for kind in kinds() {
        let path = scratch.path().join(kind.name());
        let (store, old) = users(kind, &path);
        let new: New = store.table("users").unwrap();
        let migration = store.plan("split").table(&new).paused().begin().unwrap();
        migration.step(10).unwrap();
        let other = store.clone();
        let (mut scan, mut new_scan) = (old.scan(..), new.scan(5..));
        assert!(scan.next().unwrap().is_ok() && new_scan.next().unwrap().is_ok());
        let snapshot = store.snapshot().ok();
        assert_eq!(snapshot.is_some(), kind == EngineKind::Fjall);
        let mut snapshot_scan = snapshot.as_ref().map(|snapshot| snapshot.scan(&old, ..).unwrap());
        let mut batch = store.batch();
        batch.put(&old, &3, v1("Bea B", 3));
        let plan = store.plan("later");
        #[cfg(all(unix, feature = "control"))]
        store.control_socket(path.join("control.sock")).unwrap();

        store.close().unwrap();

        opens(kind, &path);
        assert!(is_closed(old.get(&1)) && is_closed(new.get(&1)));
        assert!(is_closed(old.put(&1, &v1("Bob B", 4))) && is_closed(old.remove(&1)));
        assert!(is_closed(new.put(&1, &v2("Bob", "B", 4, None))));
        assert!(is_closed(old.len()) && is_closed(old.bulk_load([(9, v1("Bob B", 4))])));
        assert!(scan.any(is_closed) && new_scan.any(is_closed));
        assert!(snapshot_scan.as_mut().is_none_or(|scan| scan.any(is_closed)));
        assert!(snapshot.is_none_or(|snapshot| is_closed(snapshot.get(&old, &1))));
        assert!(is_closed(batch.commit()) && is_closed(plan.table(&new).begin()));
        assert!(is_closed(other.transaction(|tx| tx.get(&old, &1))));
        assert!(is_closed(other.flush()) && is_closed(other.table::<u64, UserV1>("users")));
        assert!(is_closed(other.table::<u64, UserV1>("more")));
        assert!(is_closed(migration.step(1)) && is_closed(migration.rollback()));
        assert!(is_closed(other.verify()) && is_closed(other.inventory()) && is_closed(other.ledger()));
        assert!(
            is_closed(other.bytes_on_disk())
                && is_closed(other.snapshot().map(drop)) == (kind == EngineKind::Fjall)
        );
        assert!(is_closed(other.backup(scratch.path().join("none"))));
        assert!(!scratch.path().join("none").exists());
        other.close().unwrap();
        opens(kind, &path);
    }
}

/// Rounds of the tests that race; more by `EXUVIA_CLOSING_ROUNDS`.
fn rounds() -> u64 {
    std::env::var("EXUVIA_CLOSING_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(8)
}

#[test]
fn a_close_beside_calls_of_every_kind_ends_them_and_loses_nothing() {
    let scratch = Scratch::new("closing-calls");
    for kind in kinds() {
        let path = scratch.path().join(kind.name());
        drop(users(kind, &path));
        let acknowledged = AtomicU64::new(0);
        for round in 0..rounds() {
            let store = open(kind, &path);
            let old: Old = store.table("users").unwrap();
            let at = 10_000 * (round + 1);
            thread::scope(|scope| {
                let runs = |call: &dyn Fn(u64) -> Result<(), Error>| {
                    let ended = (0..).find_map(|n| call(n).err()).unwrap();
                    assert!(matches!(ended, Error::Closed), "{}, round {round}: {ended}", kind.name());
                };
                let (old, store, acknowledged) = (&old, &store, &acknowledged);
                scope.spawn(move || {
                    runs(&|n| {
                        old.put(&(at + n), &v1("Eve E", 1))?;
                        acknowledged.store(at + n, Ordering::SeqCst);
                        Ok(())
                    });
                });
                scope.spawn(move || runs(&|n| old.get(&(n % 1000)).map(drop)));
                scope.spawn(move || runs(&|_| old.scan(..).try_for_each(|record| record.map(drop))));
                scope.spawn(move || {
                    runs(&|n| {
                        store.transaction(|tx| {
                            let user = tx.get(old, &(n % 1000))?;
                            tx.put(old, &(n % 1000), &user.unwrap_or_else(|| v1("New N", 2)))
                        })
                    });
                });
                scope.spawn(move || runs(&|_| store.flush()));
                thread::sleep(Duration::from_millis(3 * (round % 7)));
                store.clone().close().unwrap();
                let again = open(kind, &path);
                let read: Old = again.table("users").unwrap();
                for key in (at..).take_while(|key| *key <= acknowledged.load(Ordering::SeqCst)) {
                    assert!(read.get(&key).unwrap().is_some(), "{}, round {round}: {key}", kind.name());
                }
                again.close().unwrap();
            });
        }
    }
}

#[test]
fn of_two_closes_at_once_the_last_to_answer_has_closed() {
    let scratch = Scratch::new("closing-twice");
    for kind in kinds() {
        let path = scratch.path().join(kind.name());
        drop(users(kind, &path));
        for _ in 0..rounds() {
            let store = open(kind, &path);
            let handle: Old = store.table("users").unwrap();
            let answers: Vec<_> = thread::scope(|scope| {
                let closing: Vec<_> = (0..3).map(|_| scope.spawn(|| store.clone().close())).collect();
                closing.into_iter().map(|closing| closing.join().unwrap()).collect()
            });
            assert!(answers.iter().any(Result::is_ok));
            for answer in answers {
                assert!(matches!(answer, Ok(()) | Err(Error::State { .. })), "{answer:?}");
            }
            opens(kind, &path);
            drop(handle);
        }
    }
}

#[test]
fn a_close_within_a_transaction_and_within_a_scan_answers_and_lets_go() {
    let scratch = Scratch::new("closing-within");
    for kind in kinds() {
        let path = scratch.path().join(kind.name());
        let (store, old) = users(kind, &path);
        let done = store.transaction(|tx| {
            tx.put(&old, &1, &v1("Not There", 9))?;
            store.clone().close()
        });
        assert!(is_closed(done));
        opens(kind, &path);

        let store = open(kind, &path);
        let old: Old = store.table("users").unwrap();
        assert_eq!(old.get(&1).unwrap().unwrap().name, "Ann N1", "the transaction was not committed");
        let mut scan = old.scan(..);
        assert!(scan.next().unwrap().is_ok());
        store.close().unwrap();
        opens(kind, &path);
        assert!(scan.any(is_closed));
    }
}

/// Closes the store when a migration is complete: on the thread of its worker.
#[derive(Default)]
struct Closer {
    store: Mutex<Option<Store>>,
    answer: Mutex<Option<mpsc::Sender<Result<(), Error>>>>,
}

impl Observer for Closer {
    fn state_change(&self, entry: &LedgerEntry) {
        if entry.what == "complete"
            && let Some(store) = self.store.lock().unwrap().take()
        {
            let answer = store.close();
            self.answer.lock().unwrap().take().unwrap().send(answer).unwrap();
        }
    }
}

#[test]
fn a_close_by_an_observer_on_the_workers_thread_lets_go() {
    let scratch = Scratch::new("closing-observer");
    for kind in kinds() {
        let path = scratch.path().join(kind.name());
        drop(users(kind, &path));
        let closer = Arc::new(Closer::default());
        let store = Store::options().observer(closer.clone()).free_bytes_min(0).open(&path).unwrap();
        let new: New = store.table("users").unwrap();
        let (send, answer) = mpsc::channel();
        *closer.answer.lock().unwrap() = Some(send);
        *closer.store.lock().unwrap() = Some(store.clone());
        let _migration = store.plan("split").table(&new).begin().unwrap();
        answer.recv_timeout(Duration::from_secs(60)).expect("the close does not hang").unwrap();
        opens(kind, &path);
    }
}

#[test]
fn a_close_beside_a_backup_ends_it_and_leaves_nothing_of_it() {
    let scratch = Scratch::new("closing-backup");
    for kind in kinds() {
        let path = scratch.path().join(kind.name());
        let backup = scratch.path().join("backup");
        let (store, _old) = users(kind, &path);
        thread::scope(|scope| {
            let backing = scope.spawn(|| {
                // Until one was interrupted: one that has read everything is finished.
                loop {
                    match store.backup(&backup) {
                        Ok(_) => std::fs::remove_dir_all(&backup).unwrap(),
                        Err(e) => return e,
                    }
                }
            });
            thread::sleep(Duration::from_millis(100));
            store.clone().close().unwrap();
            opens(kind, &path);
            let ended = backing.join().unwrap();
            assert!(matches!(ended, Error::Closed), "{}: {ended:?}", kind.name());
        });
        assert!(!backup.exists());
    }
}

/// A store in a `static`, and a handle in a thread that is not joined: the process ends without a close.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_process_that_ends_with_its_store_open_has_lost_nothing() {
    use crate::kit::scratch::{child, child_argument};
    use exuvia::Durability;
    use std::sync::LazyLock;

    static STORE: LazyLock<Store> = LazyLock::new(|| {
        let (path, kind, _) = argument();
        let never = Durability::Buffered { interval: Duration::from_secs(3600) };
        Store::options().engine(kind).durability(never).open(path).unwrap()
    });

    fn argument() -> (String, EngineKind, bool) {
        let argument = child_argument().unwrap();
        let mut parts = argument.split(' ');
        let mut part = || parts.next().unwrap().to_owned();
        (part(), EngineKind::from_name(&part()).unwrap(), part() == "thread")
    }

    let test = "store::closing::a_process_that_ends_with_its_store_open_has_lost_nothing";
    if child_argument().is_some() {
        let users: Old = STORE.table("users").unwrap();
        let write = move || (0..100).for_each(|id| users.put(&id, &v1("Ann N", 30)).unwrap());
        if argument().2 {
            let (send, written) = mpsc::channel();
            thread::spawn(move || {
                write();
                send.send(()).unwrap();
                loop {
                    thread::park();
                }
            });
            written.recv().unwrap();
        } else {
            write();
        }
        // As a return from `main`.
        std::process::exit(0);
    }
    let scratch = Scratch::new("closing-exit");
    for kind in kinds() {
        for place in ["static", "thread"] {
            let path = scratch.path().join(format!("{}-{place}", kind.name()));
            let at = format!("{} {} {place}", path.display(), kind.name());
            let done = child(test, &at).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let users: Old = open(kind, &path).table("users").unwrap();
            assert_eq!(users.len().unwrap(), 100, "{}, {place}", kind.name());
        }
    }
}
