//! Backups: of one moment under load, whole or refused, and found out when they are damaged.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::{Budget, CastError, Error, Migration, Origin, Phase, Store, Table, Version};
use serde::{Deserialize, Serialize};

use crate::kit::errors::says;
use crate::kit::files::files_below;
use crate::kit::kinds::kinds;
use crate::kit::scratch::{Scratch, child, child_argument};
use crate::kit::types::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct AccountV1 {
    cents: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct AccountV2 {
    owner: Option<String>,
    cents: u64,
}

impl Version for AccountV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for AccountV2 {
    const VERSION: u32 = 2;
    type Previous = AccountV1;

    fn upcast(old: AccountV1) -> Result<Self, CastError> {
        Ok(AccountV2 { owner: None, cents: old.cents })
    }

    fn downcast(&self, _last: Option<AccountV1>) -> Result<AccountV1, CastError> {
        Ok(AccountV1 { cents: self.cents })
    }

    fn merge(old: AccountV1, last: AccountV2) -> Result<Option<Self>, CastError> {
        Ok(Some(AccountV2 { cents: old.cents, ..last }))
    }
}

const ACCOUNTS: u64 = 60;
const CENTS: u64 = 1000;

/// Money goes from account to account, by old code and by new, while a migration comes, goes back, and goes on; `backup` is
/// made, and looked at, four times meanwhile.
fn bank(store: &Store, backup: impl Fn(usize)) {
    let old: Table<u64, AccountV1> = store.table("accounts").unwrap();
    for account in 0..ACCOUNTS {
        old.put(&account, &AccountV1 { cents: CENTS }).unwrap();
    }
    let new: Table<u64, AccountV2> = store.table("accounts").unwrap();
    let migration = store.plan("owners").table(&new).paused().begin().unwrap();
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let transfer = |round: u64| {
        let (from, to) = (round % ACCOUNTS, (round * 7 + 3) % ACCOUNTS);
        if from == to {
            return Ok(());
        }
        store.transaction::<_, Error>(|tx| {
            if round.is_multiple_of(2) {
                let (mut a, mut b) = (tx.get(&old, &from)?.unwrap(), tx.get(&old, &to)?.unwrap());
                let cents = a.cents.min(round % 90);
                a.cents -= cents;
                b.cents += cents;
                tx.put(&old, &from, &a)?;
                tx.put(&old, &to, &b)
            } else {
                let (mut a, mut b) = (tx.get(&new, &from)?.unwrap(), tx.get(&new, &to)?.unwrap());
                let cents = a.cents.min(round % 90);
                a.cents -= cents;
                (b.cents, b.owner) = (b.cents + cents, Some(format!("{round}")));
                tx.put(&new, &from, &a)?;
                tx.put(&new, &to, &b)
            }
        })
    };
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (transfer, stop, made) = (&transfer, &stop, &made);
            scope.spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    match transfer(round * 2 + thread) {
                        // The other thread was faster too often.
                        Ok(()) | Err(Error::Conflict { .. }) => drop(made.fetch_add(1, Ordering::Relaxed)),
                        Err(e) => panic!("{e}"),
                    }
                }
            });
        }
        let stopping = Stop(&stop);
        for number in 0..4 {
            turn(&migration, number);
            let before = made.load(Ordering::Relaxed);
            while made.load(Ordering::Relaxed) < before + 20 {
                std::thread::yield_now();
            }
            backup(number);
        }
        drop(stopping);
    });
    check(store);
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn turn(migration: &Migration, number: usize) {
    match number {
        1 => drop(migration.step(25).unwrap()),
        2 => migration.rollback().unwrap(),
        3 => migration.resume().unwrap(),
        _ => {}
    }
}

/// The sum is what it was, at both views, and the migration can be ended.
fn check(store: &Store) {
    assert!(store.verify().unwrap().is_clean(), "{:?}", store.verify());
    let (old, new): (Table<u64, AccountV1>, Table<u64, AccountV2>) =
        (store.table("accounts").unwrap(), store.table("accounts").unwrap());
    let all: Vec<(u64, AccountV1)> = old.scan(..).map(Result::unwrap).collect();
    assert_eq!(all.len() as u64, ACCOUNTS);
    assert_eq!(all.iter().map(|(_, account)| account.cents).sum::<u64>(), ACCOUNTS * CENTS, "money was lost");
    for (account, at_old) in all {
        assert_eq!(new.get(&account).unwrap().unwrap().cents, at_old.cents, "the views differ at {account}");
    }
}

#[test]
fn a_backup_under_load_is_of_one_moment_on_disk() {
    let scratch = Scratch::new("backup-load");
    for kind in kinds() {
        let options = Store::options().engine(kind).budget(Budget::unlimited());
        let store = options.open(scratch.path().join(kind.name())).unwrap();
        bank(&store, |number| {
            let path = scratch.path().join(format!("{}-{number}", kind.name()));
            let made = store.backup(&path).unwrap();
            assert_eq!((made.engine, made.records, made.is_clean()), (kind, ACCOUNTS, true));
            assert_eq!(Store::check_backup(&path).unwrap(), made);
            let opened = restored(&path);
            let entries = opened.ledger().unwrap();
            assert_eq!(entries.last().unwrap().what, "backup");
            check(&opened);
            if number == 3 {
                let migration = opened.migration("owners").unwrap();
                let code: Table<u64, AccountV2> = opened.table("accounts").unwrap();
                migration.unpause().unwrap();
                assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
                migration.contract().unwrap().execute().unwrap();
                assert_eq!(
                    code.scan(..).map(|account| account.unwrap().1.cents).sum::<u64>(),
                    ACCOUNTS * CENTS
                );
            }
        });
        assert!(
            store.ledger().unwrap().iter().all(|entry| entry.what != "backup"),
            "the source is as it was"
        );
    }
}

#[test]
fn a_backup_under_load_is_of_one_moment_in_memory() {
    let scratch = Scratch::new("backup-memory");
    let options = Store::options().budget(Budget::unlimited());
    let store = options.open_in(Arc::new(MemoryEngine::new())).unwrap();
    bank(&store, |number| {
        let path = scratch.path().join(number.to_string());
        store.backup(&path).unwrap();
        check(&restored(&path));
    });
}

fn users(kind: EngineKind, path: &Path, count: u64) -> (Store, Table<u64, UserV1>) {
    let store = Store::options().engine(kind).open(path).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..count {
        users.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    (store, users)
}

/// The store that is made of a backup, beside it.
fn restored(backup: &Path) -> Store {
    let path = backup.with_extension("restored");
    Store::restore(backup, &path).unwrap();
    Store::options().create(false).open(path).unwrap()
}

fn all(store: &Store) -> BTreeMap<u64, UserV1> {
    store.table::<u64, UserV1>("users").unwrap().scan(..).map(Result::unwrap).collect()
}

fn contents(path: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let read =
        |file: std::path::PathBuf| (file.strip_prefix(path).unwrap().to_owned(), fs::read(&file).unwrap());
    files_below(path).into_iter().map(read).collect()
}

#[test]
fn what_is_there_is_not_overwritten_and_what_is_unfinished_is_refused() {
    let scratch = Scratch::new("backup-refused");
    for kind in kinds() {
        let (store, _users) = users(kind, &scratch.path().join(kind.name()), 5);
        let there = scratch.path().join(format!("there-{}", kind.name()));
        fs::create_dir(&there).unwrap();
        says(&store.backup(&there).unwrap_err(), &["is there already", "name a new directory"]);
        assert_eq!(there.read_dir().unwrap().count(), 0);
        let nowhere = scratch.path().join("no").join("where");
        says(&store.backup(&nowhere).unwrap_err(), &["cannot be made"]);
        // What a kill leaves before the last step.
        let half = scratch.path().join(format!("half-{}", kind.name()));
        store.backup(&half).unwrap();
        fs::rename(half.join("BACKUP"), half.join("BACKUP.new")).unwrap();
        let before = contents(&half);
        for create in [false, true] {
            let refused = Store::options().create(create).open(&half).unwrap_err();
            assert!(matches!(refused, Error::Path { .. }), "{refused:?}");
            says(&refused, &["half", "not finished", "make it again"]);
        }
        for refused in [
            Store::check_backup(&half).unwrap_err(),
            Store::restore(&half, scratch.path().join("r")).unwrap_err(),
            Store::salvage(&half, scratch.path().join("s"), None).unwrap_err(),
        ] {
            says(&refused, &["not finished"]);
        }
        assert_eq!(contents(&half), before, "nothing was touched");
        assert!(!scratch.path().join("r").exists() && !scratch.path().join("s").exists());
        says(&Store::check_backup(scratch.path().join(kind.name())).unwrap_err(), &["is no backup"]);
    }
}

#[test]
fn every_damage_to_a_backup_is_found_and_named() {
    let scratch = Scratch::new("backup-damage");
    for kind in kinds() {
        let (store, users) = users(kind, &scratch.path().join(kind.name()), 40);
        let path = scratch.path().join(format!("backup-{}", kind.name()));
        let made = store.backup(&path).unwrap();
        users.put(&1, &v1("Changed Later", 3)).unwrap();
        for file in files_below(&path) {
            let whole = fs::read(&file).unwrap();
            let name = file.strip_prefix(&path).unwrap().to_str().unwrap().to_owned();
            let clean = || match Store::check_backup(&path) {
                Ok(backup) => backup.damage.iter().all(|damage| !damage.contains(&name)),
                // Of the manifest itself.
                Err(e) => {
                    assert!(
                        name == "BACKUP" && matches!(e, Error::Format { .. } | Error::Path { .. }),
                        "{name}: {e}"
                    );
                    false
                }
            };
            assert!(clean(), "{name}");
            let step = if name == "BACKUP" { 1 } else { (whole.len() / 2).max(1) };
            for at in (0..whole.len()).step_by(step) {
                let mut damaged = whole.clone();
                damaged[at] ^= 1;
                fs::write(&file, damaged).unwrap();
                assert!(!clean(), "{name}: byte {at}");
            }
            for len in [0, whole.len().saturating_sub(1)] {
                fs::write(&file, &whole[..len]).unwrap();
                assert!(!clean() || len == whole.len(), "{name}: cut to {len}");
            }
            if name != "BACKUP" {
                let to = scratch.path().join("restored");
                fs::write(&file, [&whole[..], b"more"].concat()).unwrap();
                says(
                    &Store::restore(&path, &to).unwrap_err(),
                    &["is damaged, and nothing was restored", &name],
                );
                assert!(!to.exists());
            }
            fs::remove_file(&file).unwrap();
            assert!(!clean(), "{name}: removed");
            fs::write(&file, &whole).unwrap();
        }
        fs::write(path.join("more"), "x").unwrap();
        assert_eq!(Store::check_backup(&path).unwrap().damage, ["more: is not of the backup"]);
        fs::remove_file(path.join("more")).unwrap();
        assert_eq!(Store::check_backup(&path).unwrap(), made);

        // It is restored as often as one likes, and stays what it is.
        for number in 0..2 {
            let to = scratch.path().join(format!("restored-{number}-{}", kind.name()));
            assert_eq!(Store::restore(&path, &to).unwrap(), made);
            let restored = Store::options().create(false).open(&to).unwrap();
            assert_eq!(all(&restored)[&1], v1("Ann N1", 30));
            assert_eq!(all(&restored).len(), 40);
            assert!(restored.verify().unwrap().is_clean());
            says(&Store::restore(&path, &to).unwrap_err(), &["name a new directory"]);
        }
        assert_eq!(Store::check_backup(&path).unwrap(), made);
    }
}

/// To look into a backup would change it: every way in says how it is to be looked into, and nothing is touched.
#[test]
fn a_backup_is_opened_by_no_call_and_can_be_restored_after_all_of_them() {
    let scratch = Scratch::new("backup-looked-into");
    for kind in kinds() {
        let (store, users) = users(kind, &scratch.path().join(kind.name()), 40);
        let path = scratch.path().join(format!("backup-{}", kind.name()));
        let made = store.backup(&path).unwrap();
        let before = contents(&path);
        let options = || Store::options().engine(kind);
        let looks = [
            ("open", Store::open(&path).map(drop)),
            ("only if it is there", options().create(false).open(&path).map(drop)),
            ("to read", options().read_only(true).open(&path).map(drop)),
            ("at rest", options().background(false).open(&path).map(drop)),
            ("compact", Store::compact(&path).map(drop)),
            ("copy to it", store.copy_to(&path, kind).map(drop)),
            ("backup to it", store.backup(&path).map(drop)),
            ("restore to it", Store::restore(&path, &path).map(drop)),
            ("salvage to it", Store::salvage(scratch.path().join("x"), &path, None).map(drop)),
            ("its engine", kind.open(path.join(kind.name()), 16 << 20).map(drop)),
        ];
        for (number, (call, answer)) in looks.into_iter().enumerate() {
            let error = answer.expect_err(call);
            assert!(matches!(error, Error::Path { .. }), "{call}: {error:?}");
            if !(6..9).contains(&number) {
                says(&error, &["backup-", "holds a backup", "`Store::restore` (`exuvia restore`)"]);
            }
        }
        assert_eq!(contents(&path), before, "{}: nothing was touched", kind.name());
        assert_eq!(Store::check_backup(&path).unwrap(), made);

        // One that is damaged is salvaged, and stays what it is.
        fs::write(path.join("EXUVIA"), [fs::read(path.join("EXUVIA")).unwrap(), b"more".to_vec()].concat())
            .unwrap();
        let changed = contents(&path);
        let to = |name: &str| scratch.path().join(format!("{name}-{}", kind.name()));
        says(&Store::restore(&path, to("restored")).unwrap_err(), &["`Store::salvage` (`exuvia salvage`)"]);
        let salvage = Store::salvage(&path, to("salvaged"), None).unwrap();
        assert_eq!(salvage.records, 40);
        assert_eq!(contents(&path), changed);
        // What was made of it is a store.
        let salvaged = Store::open(to("salvaged")).unwrap();
        assert_eq!(all(&salvaged).len(), 40);
        drop((salvaged, users));
    }
}

/// A manifest of somebody else's cannot name files outside.
#[test]
fn a_manifest_names_nothing_outside_of_its_backup() {
    let scratch = Scratch::new("backup-outside");
    let (store, _users) = users(EngineKind::Sled, &scratch.path().join("store"), 3);
    let path = scratch.path().join("backup");
    store.backup(&path).unwrap();
    let text = fs::read_to_string(path.join("BACKUP")).unwrap();
    fs::write(scratch.path().join("secret"), "x").unwrap();
    let absolute = scratch.path().join("secret");
    for name in ["../secret", absolute.to_str().unwrap(), "sled/../../secret", ""] {
        let (body, _) = text.rsplit_once("end ").unwrap();
        let body = format!("{body}file 1 {} {name}\n", blake3::hash(b"x").to_hex());
        let end = blake3::hash(body.as_bytes()).to_hex();
        fs::write(path.join("BACKUP"), format!("{body}end {end}\n")).unwrap();
        says(&Store::check_backup(&path).unwrap_err(), &["BACKUP is damaged"]);
        says(&Store::restore(&path, scratch.path().join("to")).unwrap_err(), &["BACKUP is damaged"]);
    }
}

/// A process that is killed while it makes a backup: its store is whole, and what there is of the backup is refused.
#[test]
fn a_killed_backup_is_refused_and_its_source_is_whole() {
    const RECORDS: u64 = 2000;
    let test = "tools::backup::a_killed_backup_is_refused_and_its_source_is_whole";
    if let Some(root) = child_argument() {
        let root = Path::new(&root);
        let store = Store::open(root.join("store")).unwrap();
        store.backup(root.join("backup")).unwrap();
        return;
    }
    for kind in kinds() {
        let scratch = Scratch::new("backup-killed");
        let (path, backup) = (scratch.path().join("store"), scratch.path().join("backup"));
        let (store, table) = users(kind, &path, RECORDS);
        let expected = all(&store);
        drop(table);
        store.close().unwrap();
        let mut killed = 0;
        for wait in 0..6 {
            // The default budget lets it last for long after its directory is there.
            let mut running = child(test, scratch.path().to_str().unwrap()).spawn().unwrap();
            let place = if wait == 0 { backup.clone() } else { backup.join(kind.name()) };
            while !place.exists() && running.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(wait * wait * 5));
            running.kill().unwrap();
            running.wait().unwrap();
            if !backup.join("BACKUP").exists() {
                killed += 1;
                // Killed before it said what it is: an empty directory is no backup, and no store.
                let empty = backup.read_dir().unwrap().next().is_none();
                let opened = Store::options().create(false).open(&backup).unwrap_err();
                says(&opened, if empty { &["no store here"] } else { &["not finished"] });
                let restored = Store::restore(&backup, scratch.path().join("to")).unwrap_err();
                says(&restored, if empty { &["is no backup"] } else { &["not finished"] });
            }
            fs::remove_dir_all(&backup).unwrap();
            let store = Store::open(&path).unwrap();
            assert_eq!(all(&store), expected);
            assert!(store.verify().unwrap().is_clean());
        }
        assert!(killed > 2, "{killed} of 6 were killed in the middle");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.backup(&backup).unwrap().records, RECORDS);
    }
}
