//! Which engine keeps a store, and who says so.

use std::fs;
use std::path::Path;

#[cfg(feature = "fjall")]
use exuvia::Table;
use exuvia::engine::EngineKind;
use exuvia::{Error, Store};

use crate::kit::scratch::Scratch;
#[cfg(feature = "fjall")]
use crate::kit::types::{UserV1, v1};

fn open(path: &Path, asked: Option<EngineKind>) -> Result<Store, Error> {
    let options = Store::options().cache_bytes(16 << 20);
    match asked {
        Some(kind) => options.engine(kind).open(path),
        None => options.open(path),
    }
}

#[cfg(feature = "fjall")]
#[test]
fn a_store_is_opened_with_the_engine_that_made_it() {
    let scratch = Scratch::new("choice");
    for (name, asked, kind) in [
        ("usual", None, EngineKind::Sled),
        ("sled", Some(EngineKind::Sled), EngineKind::Sled),
        ("fjall", Some(EngineKind::Fjall), EngineKind::Fjall),
    ] {
        let path = scratch.path().join(name);
        let store = open(&path, asked).unwrap();
        let table: Table<u64, UserV1> = store.table("users").unwrap();
        table.put(&1, &v1("Ann Lee", 41)).unwrap();
        drop((store, table));
        assert!(path.join(kind.name()).is_dir());
        for asked in [None, Some(kind)] {
            let table: Table<u64, UserV1> = open(&path, asked).unwrap().table("users").unwrap();
            assert_eq!(table.get(&1).unwrap(), Some(v1("Ann Lee", 41)), "{name} {asked:?}");
        }
        let other = if kind == EngineKind::Sled { EngineKind::Fjall } else { EngineKind::Sled };
        let error = open(&path, Some(other)).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, Error::Format { .. }), "{said}");
        assert!(said.contains(kind.name()) && said.contains(other.name()), "{said}");
        assert!(!path.join(other.name()).exists(), "a refused open makes nothing");
    }
}

#[test]
fn an_engine_that_is_not_known_is_named() {
    let scratch = Scratch::new("unknown-engine");
    let path = scratch.path().join("store");
    drop(open(&path, None).unwrap());
    fs::write(path.join("EXUVIA"), "exuvia store, format 1\nengine granite\n").unwrap();
    let error = open(&path, None).unwrap_err();
    assert!(matches!(error, Error::Format { .. }) && error.to_string().contains("granite"), "{error}");
}

/// Without the feature the error names it.
#[cfg(not(feature = "fjall"))]
#[test]
fn an_engine_that_is_not_built_in_is_named() {
    let scratch = Scratch::new("missing-engine");
    let path = scratch.path().join("store");
    let error = open(&path, Some(EngineKind::Fjall)).unwrap_err();
    assert!(error.to_string().contains("feature \"fjall\""), "{error}");
    assert!(!path.join("fjall").exists());
}

/// A store whose making died goes on with the engine it began with, and nobody else's is mixed into it.
#[cfg(feature = "fjall")]
#[test]
fn a_store_that_was_being_made_keeps_its_engine() {
    let scratch = Scratch::new("claim");
    let path = scratch.path().join("store");
    drop(open(&path, Some(EngineKind::Fjall)).unwrap());
    fs::rename(path.join("EXUVIA"), path.join("EXUVIA.new")).unwrap();
    let error = open(&path, Some(EngineKind::Sled)).unwrap_err();
    assert!(matches!(error, Error::Path { .. }), "{error}");
    drop(open(&path, None).unwrap());
    assert!(fs::read_to_string(path.join("EXUVIA")).unwrap().contains("engine fjall"));
    assert!(!path.join("sled").exists());
}
