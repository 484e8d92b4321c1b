//! The catalog knows the type of a table's keys and the codec of its records, and refuses others.

use std::sync::Arc;

use exuvia::engine::{Engine, MemoryEngine};
use exuvia::shape::KeyType;
use exuvia::{CastError, Error, Key, Origin, Store, Version};
use serde::{Deserialize, Serialize};

use crate::kit::format;
use crate::kit::types::*;

fn open(engine: &MemoryEngine) -> Store {
    Store::options().open_in(Arc::new(engine.clone())).unwrap()
}

fn catalog_format(engine: &MemoryEngine) -> u8 {
    engine.tree("catalog").unwrap().get(b"catalog").unwrap().unwrap()[0]
}

fn refused(store: &Store) -> String {
    match store.table::<(u32, String), UserV1>("users") {
        Err(Error::Shape { table, version: 1, difference }) if table == "users" => difference,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_table_is_refused_under_another_type_of_keys() {
    let engine = MemoryEngine::new();
    let store = open(&engine);
    store.table::<u64, UserV1>("users").unwrap();
    assert!(refused(&store).contains("u64"));
    store.close().unwrap();
    let store = open(&engine);
    let told = refused(&store);
    assert!(told.contains("u64") && told.contains("(u32, String)"), "{told}");
    store.table::<u64, UserV1>("users").unwrap();
}

/// A store of format 1 learns it from the code, writes it with the next state change, and not before.
#[test]
fn a_store_of_format_1_learns_the_types_of_its_keys() {
    let engine = format::store_of(&format::settled(), &[(1, format::user_v1("Ann A", 3))]);
    let before = format::dump(&engine);
    let store = open(&engine);
    let users = store.table::<u64, UserV1>("users").unwrap();
    assert!(refused(&store).contains("u64"));
    store.flush().unwrap();
    assert_eq!(format::dump(&engine), before, "opening a table writes nothing");
    drop((users, store));
    // So without a state change it is not known to the next one.
    let store = open(&engine);
    store.table::<i64, UserV1>("users").unwrap();
    drop(store);

    let store = open(&engine);
    store.table::<u64, UserV1>("users").unwrap();
    store.table::<u8, UserV1>("other").unwrap();
    drop(store);
    assert_eq!(catalog_format(&engine), 2);
    let store = open(&engine);
    assert!(refused(&store).contains("u64"));
}

/// A key with an encoding of its own.
struct Own(u64);

impl Key for Own {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, CastError> {
        Key::take(input).map(Own)
    }
}

#[test]
fn keys_that_do_not_say_what_they_are_are_not_checked() {
    let engine = MemoryEngine::new();
    let store = open(&engine);
    assert_eq!(Own::key_type(), KeyType::Custom);
    store.table::<Own, UserV1>("users").unwrap().put(&Own(1), &v1("Ann", 1)).unwrap();
    // Once code says it, it is known.
    assert_eq!(store.table::<u64, UserV1>("users").unwrap().get(&1).unwrap(), Some(v1("Ann", 1)));
    assert!(refused(&store).contains("u64"));
    assert_eq!(store.table::<Own, UserV1>("users").unwrap().get(&Own(1)).unwrap(), Some(v1("Ann", 1)));
}

macro_rules! version {
    ($name:ident, $codec:expr) => {
        #[derive(Debug, Serialize, Deserialize)]
        struct $name(u32);

        impl Version for $name {
            const VERSION: u32 = 1;
            const CODEC: &'static str = $codec;
            type Previous = Origin;
            fn upcast(origin: Origin) -> Result<Self, CastError> {
                origin.never()
            }
            fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
                Origin::nothing_below()
            }
            fn encode(&self, out: &mut Vec<u8>) -> Result<(), CastError> {
                out.extend_from_slice(&self.0.to_be_bytes());
                Ok(())
            }
            fn decode(bytes: &[u8]) -> Result<Self, CastError> {
                let bytes = bytes.try_into().map_err(|_| CastError::new("not four bytes"))?;
                Ok($name(u32::from_be_bytes(bytes)))
            }
        }
    };
}
version!(Named, "four bytes");
version!(Renamed, "4 bytes");
version!(Unnamed, exuvia::codec::BINCODE);

#[test]
fn a_codec_does_not_change_without_a_new_version() {
    let engine = MemoryEngine::new();
    open(&engine).table::<u64, Named>("numbers").unwrap();
    let store = open(&engine);
    store.table::<u64, Named>("numbers").unwrap();
    for told in [
        store.table::<u64, Renamed>("numbers").unwrap_err().to_string(),
        store.table::<u64, Unnamed>("numbers").unwrap_err().to_string(),
    ] {
        assert!(told.contains("\"four bytes\"") && told.contains("next version"), "{told}");
    }
}

#[test]
fn a_codec_without_a_name_breaks_a_law() {
    exuvia::laws::check(&[], &[Named(3)]).unwrap();
    let broken = exuvia::laws::check(&[], &[Unnamed(3)]).unwrap_err();
    assert_eq!(broken.law, exuvia::laws::Law::CodecName);
}
