//! A process that may open no more files: a typed error, nothing changed, and everything else goes on.
#![cfg(target_os = "linux")]

use exuvia::engine::EngineKind;
use exuvia::migration::NewWrites;
use exuvia::{Phase, Store, Table};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kit::kinds::kinds;
use crate::kit::scratch::{Scratch, child, child_argument};
use crate::kit::types::*;

/// As many files as are open now, and `spare` more.
fn allow(spare: usize) {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some((open + spare) as u64), maximum }).unwrap();
}

fn in_child(place: &std::path::Path, kind: EngineKind) {
    let options = Store::options().engine(kind).cache_bytes(16 << 20).free_bytes_min(0);
    let store = options.open(place.join(kind.name())).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    old.put(&1, &v1("Ada Lovelace", 36)).unwrap();
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    for spare in 0..24 {
        let name = format!("with {spare}");
        allow(spare);
        let begun = store.plan(&name).table(&new).paused().begin();
        let made = store.table::<u64, UserV1>(&name);
        // Whatever became of it, writers go on.
        old.put(&2, &v1("Grace Hopper", 85)).unwrap();
        store.flush().unwrap();
        assert_eq!(old.get(&1).unwrap(), Some(v1("Ada Lovelace", 36)), "{name}");
        allow(1000);
        match made {
            Ok(table) => table.put(&1, &v1("Ada Lovelace", 36)).unwrap(),
            Err(e) => {
                assert!(e.to_string().contains("raise the limit"), "{name}: {e}");
                assert_eq!(store.tables(), ["users"], "{name}");
            }
        }
        match begun {
            Ok(migration) => {
                migration.rollback().unwrap();
                migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
            }
            Err(e) => {
                assert!(e.to_string().contains("raise the limit"), "{name}: {e}");
                assert!(store.migration(&name).is_err(), "{name}");
            }
        }
        if store.tables().len() == 2 {
            store.drop_table(&name).unwrap();
        }
    }
    let migration = store.plan("at last").table(&new).begin().unwrap();
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
    migration.contract().unwrap().execute().unwrap();
    assert!(store.verify().unwrap().is_clean());
    println!("child: done");
}

#[test]
fn a_tree_that_cannot_be_made_for_want_of_files_stops_nobody() {
    let test = "store::descriptors::a_tree_that_cannot_be_made_for_want_of_files_stops_nobody";
    if let Some(argument) = child_argument() {
        let (place, kind) = argument.rsplit_once('#').unwrap();
        let kind = kinds().find(|known| known.name() == kind).unwrap();
        in_child(std::path::Path::new(place), kind);
        return;
    }
    for kind in kinds() {
        let scratch = Scratch::new("descriptors");
        let place = format!("{}#{}", scratch.path().display(), kind.name());
        let output = child(test, &place).output().unwrap();
        let (said, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("child: done"), "{}: {said} {errors}", kind.name());
    }
}
