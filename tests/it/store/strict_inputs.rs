//! Nothing unknown, twice or out of range is taken, from wherever it comes.

use std::sync::Arc;
use std::time::Duration;

use exuvia::engine::MemoryEngine;
use exuvia::{Budget, Durability, Error, Phase, Store};

use crate::kit::scene::scene;

fn refused<T: std::fmt::Debug>(result: exuvia::Result<T>, of: &str) {
    match result {
        Err(Error::Argument { what, reason }) => assert_eq!(what, of, "{reason}"),
        other => panic!("{of}: {other:?}"),
    }
}

#[test]
fn values_out_of_range_are_refused_where_they_are_used() {
    let scene = scene(3);
    let migration = scene.store.plan("split").table(&scene.new).paused().begin().unwrap();
    let open = |options: exuvia::Options| options.open_in(Arc::new(MemoryEngine::new()));
    for share in [7.0, 0.0, -0.3, 1.000_001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let budget = Budget::default().core_share(share);
        refused(migration.set_budget(budget), "Budget::core_share");
        refused(open(Store::options().budget(budget)), "Budget::core_share");
    }
    for pause in [Duration::ZERO, Duration::from_nanos(9_999), Duration::from_secs(3601), Duration::MAX] {
        let budget = Budget::default().pause_max(pause);
        refused(migration.set_budget(budget), "Budget::pause_max");
        refused(open(Store::options().budget(budget)), "Budget::pause_max");
    }
    for interval in [Duration::ZERO, Duration::from_micros(999), Duration::MAX] {
        let options = Store::options().durability(Durability::Buffered { interval });
        refused(open(options), "Durability::Buffered::interval");
    }
    for (pause, share) in [(Duration::from_micros(10), 0.01), (Duration::from_secs(3600), 1.0)] {
        let budget = Budget::default().pause_max(pause).core_share(share);
        migration.set_budget(budget).unwrap();
        drop(open(Store::options().budget(budget)).unwrap());
    }
    assert_eq!(migration.status().unwrap().phase, Phase::Open);
}

#[cfg(feature = "sled")]
#[test]
fn a_refused_option_makes_nothing() {
    let scratch = crate::kit::scratch::Scratch::new("strict-options");
    let path = scratch.path().join("store");
    refused(Store::options().budget(Budget::default().core_share(2.0)).open(&path), "Budget::core_share");
    assert!(!path.exists());
}

/// Lines of an import, each wrong in one place; the table stays as it was.
#[cfg(feature = "json")]
#[test]
fn lines_of_an_import() {
    let scene = scene(2);
    let lines: Vec<String> = scene.store.export(&[], None).unwrap().map(Result::unwrap).collect();
    let to = Store::options().open_in(Arc::new(MemoryEngine::new())).unwrap();
    for (line, from, into, says) in [
        (0, "{", "{\"more\":1,", "unknown field `more`"),
        (0, "{", "{\"exuvia\":1,", "\"exuvia\" is there twice"),
        (0, "{\"table\"", "{\"colour\":2,\"table\"", "unknown field `colour`"),
        (0, "\"shape\":{", "\"shape\":{\"size\":3,", "unknown field `size`"),
        (0, "\"name\":\"age\"", "\"name\":\"age\",\"name\":\"age\"", "\"name\" is there twice"),
        (0, "\"name\":\"age\"", "\"name\":\"age\",\"unit\":\"a\"", "unknown field `unit`"),
        (0, "\"version\":1", "\"version\":4294967296", "4294967296"),
        (1, "{", "{\"more\":1,", "unknown field `more`"),
        (1, "\"record\":{", "\"record\":{\"age\":1,", "\"age\" is there twice"),
        (1, "\"record\":{", "\"record\":{\"more\":1,", "no field \"more\""),
        (1, "\"version\":1", "\"version\":1,\"version\":1", "\"version\" is there twice"),
        (1, "\"age\":0", "\"age\":-1", "expected a u32, found -1"),
        (1, "\"age\":0", "\"age\":4294967296", "expected a u32, found 4294967296"),
        (1, "\"age\":0", "\"age\":0.5", "expected a u32, found 0.5"),
        (1, "\"age\":0", "\"age\":\"0\"", "expected a u32"),
        (1, "\"key\":0", "\"key\":-1", "key of type u64"),
        (1, "}}", "}}{}", "trailing characters"),
    ] {
        let changed = lines[line].replacen(from, into, 1);
        assert_ne!(changed, lines[line], "{from}");
        let mut import = to.import(line == 0);
        let refused = if line == 0 {
            import.line(&changed)
        } else {
            import.line(&lines[0]).unwrap();
            import.line(&changed)
        };
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Format { .. } | Error::Codec { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{says:?} is not in: {error}");
        drop(import);
        assert!(to.inventory().unwrap().iter().all(|table| table.records.is_empty()));
    }
    let mut import = to.import(false);
    lines.iter().for_each(|line| import.line(line).unwrap());
    assert_eq!(import.finish().unwrap()["users"], 2);
}

#[cfg(feature = "json")]
#[test]
fn keys_and_maps() {
    use exuvia::shape::{KeyType, Shape};
    use std::collections::BTreeMap;

    let key: KeyType = "Option<Option<u8>>".parse().unwrap();
    let put = |text: &str| exuvia::json::encode_key(&key, &exuvia::json::parse(text.as_bytes()).unwrap());
    assert!(put(r#"{"Some":1}"#).is_ok());
    assert!(put(r#"{"Some":1,"more":2}"#).is_err());

    // Each number has one name.
    let shape = Shape::of::<exuvia::Plain<BTreeMap<u16, bool>>>().unwrap();
    let encode = |text: &str| {
        let value = exuvia::json::parse(text.as_bytes()).map_err(|e| e.to_string())?;
        exuvia::json::encode(&shape, &value).map_err(|e| e.to_string())
    };
    assert_eq!(encode(r#"{"1":true,"2":false}"#).unwrap(), [2, 1, 1, 2, 0]);
    for (text, says) in [
        (r#"{"1":true,"1":false}"#, "is there twice"),
        (r#"{"1":true,"01":false}"#, "expected a u16"),
        (r#"{"1":true,"+1":false}"#, "expected a u16"),
        (r#"{"65536":true}"#, "expected a u16"),
    ] {
        let error = encode(text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
}
