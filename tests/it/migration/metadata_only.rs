//! Steps that rewrite no record: the old type leaves the code afterwards, and histories come together.

use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::{CastError, Error, Origin, Plain, Store, Table, Version};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Named {
    name: String,
}

/// A type of a lineage, with its version, the previous type and the casts.
macro_rules! version {
    ($type:ident $version:literal after $previous:ty, same bytes $same:literal, $up:expr, $down:expr) => {
        impl Version for $type {
            const VERSION: u32 = $version;
            const SAME_BYTES: bool = $same;
            const DROPS_FIELDS: bool = !$same && $version > 2;
            type Previous = $previous;
            fn upcast(previous: $previous) -> Result<Self, CastError> {
                $up(previous)
            }
            fn downcast(&self, last: Option<$previous>) -> Result<$previous, CastError> {
                $down(self, last)
            }
        }
    };
}

/// The same bytes under another name.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Titled {
    title: String,
}
version!(Titled 2 after Plain<Named>, same bytes true,
    |old: Plain<Named>| Ok(Titled { title: old.0.name }),
    |it: &Titled, _| Ok(Plain(Named { name: it.title.clone() })));

/// The next release: version 1 is gone from the code.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Pruned {
    title: String,
}
version!(Pruned 2 after Origin, same bytes false, |o: Origin| o.never(), |_: &Pruned, _| Origin::nothing_below());

/// The one after it.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Counted {
    length: u64,
    title: String,
}
version!(Counted 3 after Pruned, same bytes false,
|old: Pruned| Ok(Counted { length: old.title.len() as u64, title: old.title }),
|it: &Counted, last: Option<Pruned>| {
    assert!(last.is_none_or(|last| last.title.starts_with('a')), "the last form of another record");
    Ok(Pruned { title: it.title.clone() })
});

/// Another program's version 1, of other bytes.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Other {
    number: u8,
}
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
struct OfOther {
    title: String,
}
version!(OfOther 2 after Plain<Other>, same bytes false,
|old: Plain<Other>| Ok(OfOther { title: format!("a{}", old.0.number) }),
|it: &OfOther, _| {
    let number = it.title.strip_prefix('a').and_then(|n| n.parse().ok());
    number.map(|number| Plain(Other { number })).ok_or(CastError::new("no number"))
});

fn open(engine: &MemoryEngine) -> Store {
    Store::options().open_in(Arc::new(engine.clone())).unwrap()
}

fn contract<V: Version>(store: &Store, name: &str, table: &Table<u64, V>) {
    let migration = store.plan(name).table(table).begin().unwrap();
    migration.wait().unwrap();
    migration.contract().unwrap().execute().unwrap();
}

/// A table with records 0 to 9 of version 1 and, after the step, 10 of version 2.
fn renamed() -> MemoryEngine {
    let engine = MemoryEngine::new();
    let store = open(&engine);
    let old: Table<u64, Plain<Named>> = store.table("t").unwrap();
    for key in 0..10 {
        old.put(&key, &Plain(Named { name: format!("a{key}") })).unwrap();
    }
    let new: Table<u64, Titled> = store.table("t").unwrap();
    contract(&store, "rename", &new);
    new.put(&10, &Titled { title: "a10".into() }).unwrap();
    // Also in the process that has contracted it, and beside the lineage that knows both.
    assert_eq!(store.table::<u64, Pruned>("t").unwrap().len().unwrap(), 11);
    drop((old, new));
    store.close().unwrap();
    engine
}

fn titles<V: Version>(table: &Table<u64, V>, title: impl Fn(V) -> String) {
    let wanted: Vec<(u64, String)> = (0..11).map(|key| (key, format!("a{key}"))).collect();
    let scanned =
        table.scan(..).map(|next| next.map(|(key, it)| (key, title(it)))).collect::<exuvia::Result<Vec<_>>>();
    assert_eq!(scanned.unwrap(), wanted);
    for (key, text) in wanted {
        assert_eq!(table.get(&key).unwrap().map(&title), Some(text));
    }
}

#[test]
fn the_old_type_leaves_the_code() {
    let engine = renamed();
    let store = open(&engine);
    let table: Table<u64, Pruned> = store.table("t").unwrap();
    titles(&table, |it| it.title);
    assert_eq!(store.inventory().unwrap()[0].records, [(1, 10), (2, 1)].into());
    assert_eq!(store.verify().unwrap().damage, Vec::<String>::new());
    let swapped = store.transaction(|t| {
        let it = t.get(&table, &3)?.expect("it is there");
        t.put(&table, &3, &it)?;
        Ok::<_, Error>(it.title)
    });
    assert_eq!(swapped.unwrap(), "a3");
    assert_eq!(store.inventory().unwrap()[0].records, [(1, 9), (2, 2)].into());
    let copy = MemoryEngine::new();
    store.copy_in(&copy).unwrap();
    titles(&open(&copy).table::<u64, Pruned>("t").unwrap(), |it| it.title);
}

#[cfg(feature = "json")]
#[test]
fn an_export_of_it_is_of_one_version() {
    let engine = renamed();
    let store = open(&engine);
    let lines: Vec<String> = store.export(&[], None).unwrap().map(Result::unwrap).collect();
    assert!(
        lines[1..].iter().all(|line| line.contains("\"version\":2") && line.contains("title")),
        "{lines:?}"
    );
    let to = open(&MemoryEngine::new());
    let mut import = to.import(false);
    lines.iter().for_each(|line| import.line(line).unwrap());
    import.finish().unwrap();
    titles(&to.table::<u64, Pruned>("t").unwrap(), |it| it.title);
}

/// The next migration reads the base as the version that its records are the bytes of, whichever way it ends.
#[test]
fn a_migration_goes_on_from_there() {
    for forward in [true, false] {
        let engine = renamed();
        let store = open(&engine);
        let old: Table<u64, Pruned> = store.table("t").unwrap();
        let new: Table<u64, Counted> = store.table("t").unwrap();
        titles(&new, |it| it.title);
        // Before `begin`: through the last form, for a type that drops fields.
        let same = new.get(&4).unwrap().unwrap();
        new.put(&4, &same).unwrap();
        let migration = store.plan("count").table(&new).paused().begin().unwrap();
        new.put(&5, &Counted { length: 2, title: "a5".into() }).unwrap();
        old.put(&6, &Pruned { title: "a6".into() }).unwrap();
        titles(&old, |it| it.title);
        titles(&new, |it| it.title);
        migration.unpause().unwrap();
        migration.wait().unwrap();
        assert_eq!(migration.status().unwrap().tables[0].counts.quarantined, 0);
        assert_eq!(new.get(&7).unwrap().unwrap(), Counted { length: 2, title: "a7".into() });
        assert_eq!(store.verify().unwrap().damage, Vec::<String>::new());
        if forward {
            migration.contract().unwrap().execute().unwrap();
            titles(&new, |it| it.title);
        } else {
            migration.rollback().unwrap();
            titles(&old, |it| it.title);
            migration.abandon(exuvia::migration::NewWrites::Keep).unwrap().execute().unwrap();
            titles(&old, |it| it.title);
            titles(&new, |it| it.title);
        }
        assert_eq!(store.verify().unwrap().damage, Vec::<String>::new());
    }
}

/// What the error advises can be done: with the code of both versions, migrate and contract.
#[test]
fn before_the_contract_the_old_type_is_needed() {
    let engine = MemoryEngine::new();
    let store = open(&engine);
    let old: Table<u64, Plain<Named>> = store.table("t").unwrap();
    old.put(&0, &Plain(Named { name: "a0".into() })).unwrap();
    let new: Table<u64, Titled> = store.table("t").unwrap();
    let refused = || match store.table::<u64, Pruned>("t") {
        Err(Error::Version { version: 1, reason, .. }) => {
            for part in ["holds records of version 1", "is version 2", "migrate it to version 2 and contract"]
            {
                assert!(reason.contains(part), "{reason}");
            }
        }
        other => panic!("{other:?}"),
    };
    refused();
    let migration = store.plan("rename").table(&new).begin().unwrap();
    migration.wait().unwrap();
    refused();
    migration.contract().unwrap().execute().unwrap();
    let table: Table<u64, Pruned> = store.table("t").unwrap();
    assert_eq!(table.get(&0).unwrap().unwrap().title, "a0");
}

/// Two stores with different versions 1 have come to one version 2: each program opens both, whatever its own version 1.
#[test]
fn histories_come_together() {
    let one = renamed();
    let two = MemoryEngine::new();
    {
        let store = open(&two);
        let old: Table<u64, Plain<Other>> = store.table("t").unwrap();
        for number in 0..11 {
            old.put(&u64::from(number), &Plain(Other { number })).unwrap();
        }
        let new: Table<u64, OfOther> = store.table("t").unwrap();
        // While there are records of version 1, they bind.
        let error = store.table::<u64, Titled>("t").unwrap_err().to_string();
        assert!(error.contains("version 1") && error.contains("without a new version"), "{error}");
        contract(&store, "number", &new);
    }
    for engine in [one, two] {
        let store = open(&engine);
        titles(&store.table::<u64, Pruned>("t").unwrap(), |it| it.title);
        titles(&store.table::<u64, Titled>("t").unwrap(), |it| it.title);
        titles(&store.table::<u64, OfOther>("t").unwrap(), |it| it.title);
        titles(&store.table::<u64, Counted>("t").unwrap(), |it| it.title);
        assert_eq!(store.verify().unwrap().damage, Vec::<String>::new());
    }
}

/// The bytes are the same only if the codec is.
#[test]
fn another_codec_is_not_the_same_bytes() {
    #[derive(Serialize, Deserialize)]
    struct Coded {
        name: String,
    }
    impl Version for Coded {
        const VERSION: u32 = 2;
        const SAME_BYTES: bool = true;
        const CODEC: &'static str = "backwards";
        type Previous = Plain<Named>;
        fn upcast(old: Plain<Named>) -> Result<Self, CastError> {
            Ok(Coded { name: old.0.name })
        }
        fn downcast(&self, _: Option<Plain<Named>>) -> Result<Plain<Named>, CastError> {
            Ok(Plain(Named { name: self.name.clone() }))
        }
        fn encode(&self, out: &mut Vec<u8>) -> Result<(), CastError> {
            out.extend(self.name.bytes().rev());
            Ok(())
        }
        fn decode(bytes: &[u8]) -> Result<Self, CastError> {
            let name = String::from_utf8(bytes.iter().rev().copied().collect());
            name.map(|name| Coded { name }).map_err(|e| CastError::new(e.to_string()))
        }
    }
    let store = open(&MemoryEngine::new());
    let _old: Table<u64, Plain<Named>> = store.table("t").unwrap();
    let new: Table<u64, Coded> = store.table("t").unwrap();
    let error = store.plan("code").table(&new).begin().unwrap_err().to_string();
    assert!(error.contains("SAME_BYTES is declared, but its codec is \"backwards\""), "{error}");
}

/// A view between the two versions of a migration that skips one: it reads the older form, upcast, and does not write.
#[test]
fn a_view_between_reads_the_older_form() {
    use crate::kit::types::{UserV1, UserV2, UserV3, v1, v2};
    let store = open(&MemoryEngine::new());
    let one: Table<u64, UserV1> = store.table("users").unwrap();
    one.put(&1, &v1("Ada Byron", 36)).unwrap();
    one.put(&2, &v1("Alan Turing", 41)).unwrap();
    let three: Table<u64, UserV3> = store.table("users").unwrap();
    let two: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.plan("skip").table(&three).begin().unwrap();
    migration.wait().unwrap();
    let mut ada = three.get(&1).unwrap().unwrap();
    ada.email = Some("ada@example.org".into());
    ada.last = "King".into();
    three.put(&1, &ada).unwrap();
    // What both hold is what was written last; what only the newer holds is what the upcast makes of the older.
    assert_eq!(two.get(&1).unwrap(), Some(v2("Ada", "King", 36, None)));
    assert_eq!(two.get(&2).unwrap(), Some(v2("Alan", "Turing", 41, None)));
    let refused = two.put(&1, &v2("Ada", "King", 36, None));
    assert!(matches!(refused, Err(Error::Version { version: 2, .. })), "{refused:?}");
    assert_eq!(three.get(&1).unwrap(), Some(ada));
    migration.contract().unwrap().execute().unwrap();
    assert!(matches!(two.get(&1), Err(Error::Version { version: 2, .. })));
}
