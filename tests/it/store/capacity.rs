//! A store that is as full of tables and migrations as it can be goes on working.

use std::fmt::Write;

use exuvia::engine::EngineKind;
use exuvia::migration::NewWrites;
use exuvia::{Error, Plain, Store, Table};

use crate::kit::scratch::Scratch;
use crate::kit::types::*;

fn open(scratch: &Scratch, kind: EngineKind) -> Store {
    Store::options()
        .engine(kind)
        .cache_bytes(16 << 20)
        .free_bytes_min(0)
        .open(scratch.path().join(kind.name()))
        .unwrap()
}

/// A name of a length with a number in it.
fn name(number: usize, length: usize) -> String {
    let mut name = format!("{number:04}");
    while name.len() < length {
        name.write_char('n').unwrap();
    }
    name
}

/// Makes tables until one is refused, and answers how many there are.
fn fill(store: &Store, length: usize) -> usize {
    for number in 0.. {
        match store.table::<u64, UserV1>(&name(number, length)) {
            Ok(table) => table.put(&1, &v1("Ada Lovelace", 36)).unwrap(),
            Err(e) => {
                assert!(matches!(e, Error::Limit { .. }), "{e:?}");
                let said = e.to_string();
                assert!(said.contains("drop tables") && said.contains("nothing was written"), "{said}");
                assert_eq!(store.tables().len(), number);
                return number;
            }
        }
    }
    unreachable!("there is always a limit");
}

/// Everything that can be done to what is there, with the longest names and texts.
fn everything_fits(store: &Store, tables: usize, length: usize) {
    let (why, by) = ("w".repeat(1024), "b".repeat(256));
    for (number, contract) in [(0, false), (1, true), (tables - 1, true)] {
        let newer: Table<u64, UserV2> = store.table(&name(number, length)).unwrap();
        let plan = store.plan(&name(number, 256)).table(&newer).why(&*why).by(&*by);
        let migration = plan.begin().unwrap().why(&*why).by(&*by);
        assert!(store.table::<u64, Plain<u64>>("one more").is_err());
        migration.wait().unwrap();
        migration.pause().unwrap();
        migration.unpause().unwrap();
        migration.rollback().unwrap();
        migration.resume().unwrap();
        migration.restart().unwrap();
        migration.wait().unwrap();
        assert_eq!(newer.get(&1).unwrap(), Some(v2("Ada", "Lovelace", 36, None)));
        if contract {
            migration.contract().unwrap().execute().unwrap();
        } else {
            migration.rollback().unwrap();
            migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
        }
        while store.is_sweeping() {
            std::thread::yield_now();
        }
    }
    // All at once is too much, and that changes nothing.
    let revision = store.ledger().unwrap().len();
    let tables: Vec<Table<u64, UserV2>> =
        store.tables().iter().take(tables - 1).skip(2).map(|name| store.table(name).unwrap()).collect();
    let all = tables.iter().fold(store.plan("all"), |plan, table| plan.table(table));
    assert!(matches!(all.begin(), Err(Error::Limit { .. })));
    assert_eq!(store.ledger().unwrap().len(), revision);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    let cleared: Table<u64, UserV1> = store.table(&name(2, length)).unwrap();
    cleared.clear().unwrap();
    assert_eq!(cleared.bulk_load((0..9).map(|n| (n, v1("Ada Lovelace", 36)))).unwrap(), 9);
}

#[test]
fn a_catalog_that_is_full_has_room_for_every_verb() {
    let scratch = Scratch::new("room");
    let length = if std::env::var_os("EXUVIA_TEST_ROOM").is_some() { 10 } else { 256 };
    let store = open(&scratch, EngineKind::Sled);
    let tables = fill(&store, length);
    println!("sled: {tables} tables with names of {length} bytes");
    everything_fits(&store, tables, length);
    store.close().unwrap();
    let store = open(&scratch, EngineKind::Sled);
    assert_eq!(store.tables().len(), tables);
    // What the error says helps.
    let mut dropped = 0;
    while let Err(e) = store.table::<u64, UserV1>("one more") {
        assert!(
            matches!(e, Error::Limit { .. }) && dropped < tables / 2,
            "{e}, and {dropped} tables are gone"
        );
        dropped += 1;
        store.drop_table(&name(2 + dropped, length)).unwrap();
    }
}

/// A minute: each table is a directory with files of its own.
#[cfg(feature = "fjall")]
#[test]
fn an_engine_that_is_full_of_trees_has_room_for_every_verb() {
    if std::env::var_os("EXUVIA_TEST_ROOM").is_none() {
        // With few trees: `engine/fjall/limit_tests.rs`.
        println!(
            "SKIPPED: takes a minute; set EXUVIA_TEST_ROOM. A `begin` at the last tree was refused there when last run"
        );
        return;
    }
    let scratch = Scratch::new("room");
    let store = open(&scratch, EngineKind::Fjall);
    let tables = fill(&store, 10);
    println!("fjall: {tables} tables");
    everything_fits(&store, tables, 10);
}

/// The ledger counts by table where it can, and over all tables where there are many.
#[test]
fn a_migration_of_many_tables_is_told_in_sums() {
    let scratch = Scratch::new("sums");
    let store = open(&scratch, EngineKind::Sled);
    let told = |tables: usize, first: usize| {
        let tables: Vec<Table<u64, UserV2>> = (first..first + tables)
            .map(|number| {
                let old: Table<u64, UserV1> = store.table(&name(number, 30)).unwrap();
                old.put(&1, &v1("Ada Lovelace", 36)).unwrap();
                store.table(&name(number, 30)).unwrap()
            })
            .collect();
        let plan = store.plan(&format!("m{first}"));
        let migration = tables.iter().fold(plan, |plan, table| plan.table(table)).begin().unwrap();
        migration.wait().unwrap();
        migration.contract().unwrap().execute().unwrap();
        let ledger = store.ledger().unwrap();
        let of = |what: &str| ledger.iter().rfind(|entry| entry.what == what).unwrap().counts.clone();
        [of("begin"), of("complete"), of("contract")]
    };
    let [begin, complete, _] = told(2, 0);
    assert_eq!(begin[0], (format!("{} from", name(0, 30)), 1));
    assert_eq!(complete[3], (format!("{} copied", name(1, 30)), 1));
    let count = |name: &str, count: u64| (name.to_owned(), count);
    let [begin, complete, contract] = told(60, 10);
    assert_eq!(begin, [count("tables", 60)]);
    let zero = |name: &str| count(name, 0);
    assert_eq!(
        complete,
        [count("tables", 60), zero("brought forward"), count("copied", 60), zero("quarantined")]
    );
    assert_eq!(contract, [count("tables", 60), zero("brought forward"), count("verified", 60)]);
}
