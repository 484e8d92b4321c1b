//! A disk that fills up under an engine.

use std::fs;
use std::path::PathBuf;

use std::io::Write as _;

use exuvia::engine::EngineErrorKind;
use exuvia::engine::EngineKind;
use exuvia::migration::{Backfill, Waiting};
use exuvia::{Budget, Error, Phase, Store, Table};

use crate::kit::files::Mount;
use crate::kit::scene::until;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

#[test]
fn a_full_disk_under_sled_is_a_typed_error_and_loses_nothing_flushed() {
    fill(EngineKind::Sled);
}

#[cfg(feature = "fjall")]
#[test]
fn a_full_disk_under_fjall_is_a_typed_error_and_loses_nothing_flushed() {
    fill(EngineKind::Fjall);
}

fn fill(kind: EngineKind) {
    let open = |path: &PathBuf| kind.open(path, 16 << 20);
    // Engines fail in different ways for small and for large values.
    for size in [400_usize, 20_000, 45_000] {
        let scratch = Scratch::new("full");
        let Some(mount) = Mount::new(scratch.path().join("disk"), 48) else {
            return;
        };
        let path = mount.0.join("store");
        let ballast = mount.0.join("ballast");
        fs::write(&ballast, vec![1; 12 << 20]).unwrap();
        let record = |n: u32| vec![n as u8; size];

        let engine = open(&path).unwrap();
        let tree = engine.tree("t").unwrap();
        let (mut flushed, mut error) = (0, None);
        for n in 0_u32..100_000 {
            let written = tree.put(&n.to_be_bytes(), &record(n));
            let result = written.and_then(|()| if n % 4 == 3 { engine.flush() } else { Ok(()) });
            if let Err(e) = result {
                error = Some(e);
                break;
            }
            flushed = if n % 4 == 3 { n + 1 } else { flushed };
        }
        let error = error.expect("the disk is full");
        assert_eq!(error.kind(), EngineErrorKind::NoSpace, "{size}: {error}");
        assert!(flushed > 0);
        let later = tree.put(b"more", &record(0)).err().map(|e| e.kind());
        assert!(
            matches!(later, Some(EngineErrorKind::Poisoned | EngineErrorKind::NoSpace)),
            "{size}: {later:?}"
        );
        assert_eq!(&*tree.get(&0_u32.to_be_bytes()).unwrap().unwrap(), &*record(0), "reads go on");

        drop((tree, engine));
        fs::remove_file(&ballast).unwrap();
        let engine = open(&path).unwrap();
        let tree = engine.tree("t").unwrap();
        for n in 0..flushed {
            assert!(
                tree.get(&n.to_be_bytes()).unwrap().is_some_and(|value| *value == *record(n)),
                "{size}: {n}"
            );
        }
        tree.put(b"more", b"room again").unwrap();
        engine.flush().unwrap();
    }
}

#[test]
fn a_disk_that_fills_up_during_a_migration_on_sled_costs_time_only() {
    migrate(EngineKind::Sled);
}

#[cfg(feature = "fjall")]
#[test]
fn a_disk_that_fills_up_during_a_migration_on_fjall_costs_time_only() {
    migrate(EngineKind::Fjall);
}

const RECORDS: u64 = 3000;

fn long(id: u64) -> UserV1 {
    v1(&format!("Ann {}", format!("{id:08}").repeat(150)), 30)
}

fn migrate(kind: EngineKind) {
    let scratch = Scratch::new("full-migration");
    let Some(mount) = Mount::new(scratch.path().join("disk"), 64) else {
        return;
    };
    let open = || {
        let options = Store::options().engine(kind).cache_bytes(16 << 20).budget(Budget::unlimited());
        options.free_bytes_min(0).open(mount.0.join("store"))
    };
    let store = open().unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..RECORDS {
        old.put(&id, &long(id)).unwrap();
    }
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    store.flush().unwrap();

    // Room for the state to change, and for some of the records.
    let ballast = mount.0.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    let mut bytes: u64 = 0;
    while file.write_all(&[1; 64 << 10]).is_ok() {
        bytes += 64 << 10;
    }
    file.set_len(bytes.saturating_sub(1 << 20)).unwrap();
    migration.unpause().unwrap();

    // The backfill meets the end of the disk; the foreground too, at the latest when it makes its writes durable.
    let mut failed = None;
    until("the disk is full", || {
        for id in RECORDS.. {
            let put = new.put(&id, &v2("Eve", &"x".repeat(1000), 7, None));
            if let Err(e) = put.and_then(|()| store.flush()) {
                failed = Some(e);
                break;
            }
        }
        true
    });
    let failed = failed.unwrap();
    let typed = match &failed {
        Error::Engine(e) => matches!(e.kind(), EngineErrorKind::NoSpace | EngineErrorKind::Poisoned),
        Error::Poisoned { .. } => true,
        _ => false,
    };
    assert!(typed, "{failed:?}");
    until("the worker says that it does not get on", || {
        let status = migration.status().unwrap();
        let waits = matches!(
            status.backfill,
            Backfill::Waiting(Waiting::Retry { .. } | Waiting::Failed { .. }) | Backfill::Stopped
        );
        waits || store.flush().is_err()
    });
    for id in [0, RECORDS - 1] {
        // Where the engine stopped altogether even a read answers an error, and nothing wrong.
        if let Ok(found) = old.get(&id) {
            assert_eq!(found, Some(long(id)));
        }
    }

    drop((old, new, migration, store, file));
    fs::remove_file(&ballast).unwrap();
    let store = open().unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..RECORDS {
        assert_eq!(old.get(&id).unwrap(), Some(long(id)), "record {id}");
    }
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
    // With the code of the new version it goes on, and comes to its end.
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.migration("split").unwrap();
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
    migration.contract().unwrap().execute().unwrap();
    for id in 0..RECORDS {
        let long = long(id);
        let found = new.get(&id).unwrap().unwrap();
        assert_eq!(format!("{} {}", found.first, found.last), long.name, "record {id}");
    }
    assert!(store.verify().unwrap().is_clean());
}
