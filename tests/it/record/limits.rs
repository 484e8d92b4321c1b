//! Lengths and depths that no honest writer makes, in everything that is decoded: a typed error, and no memory for them.

use std::sync::Arc;

use exuvia::engine::{Engine, MemoryEngine};
use exuvia::shape::{KeyType, Shape};
use exuvia::{Error, Store, Table, codec};
use serde::{Deserialize, Serialize};

#[cfg(feature = "json")]
use crate::kit::errors::says;
use crate::kit::format::{self, Bytes, sealed};
use crate::kit::types::*;

/// As bincode writes a length that needs eight bytes.
fn huge() -> Vec<u8> {
    [vec![253], (1_u64 << 60).to_le_bytes().to_vec()].concat()
}

#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Tree>),
}

#[test]
fn values_have_limits() {
    let deep = [vec![1; 1_000_000], vec![0]].concat();
    assert!(codec::decode::<Tree>(&deep).unwrap_err().message().contains("nests deeper than 128"));
    assert!(codec::decode_bincode1::<Tree>(&vec![1; 1_000_000]).is_err());
    for bytes in [huge(), [huge(), vec![0; 100]].concat()] {
        assert!(codec::decode::<Vec<u64>>(&bytes).is_err());
        assert!(codec::decode::<String>(&bytes).is_err());
        assert!(codec::decode::<Vec<()>>(&bytes).is_err());
        assert!(codec::decode::<std::collections::BTreeMap<String, ()>>(&bytes).is_err());
    }
    assert!(codec::decode::<Vec<u8>>(&vec![0; codec::VALUE_BYTES_MAX + 1]).is_err());
}

#[test]
fn shapes_and_types_of_keys_have_limits() {
    // Option(Option(…)): code 18.
    let deep = [vec![18; 100_000], vec![1, 0]].concat();
    assert!(codec::decode::<Shape>(&deep).is_err());
    assert!(codec::decode::<Shape>(&[vec![12], huge()].concat()).is_err());
    for text in [
        "Option<".repeat(100_000),
        "(".repeat(100_000),
        format!("{}u8{}", "Option<".repeat(33), ">".repeat(33)),
    ] {
        assert!(text.parse::<KeyType>().is_err());
    }
}

/// A shape that names itself without end can be stored, and nothing that walks it may be endless.
#[cfg(feature = "json")]
#[test]
fn a_shape_that_never_ends_is_an_error_for_a_value() {
    // Named(0); type 0: NewType(Named(0)).
    let bytes = Bytes::default().raw(&[23, 0, 1]).text("Endless").raw(&[1, 23, 0]).0;
    let shape: Shape = codec::decode(&bytes).unwrap();
    assert!(exuvia::json::decode(&shape, &[0; 100]).is_err());
    assert!(exuvia::json::encode(&shape, &serde_json::json!([1])).is_err());
    let _text_and_fingerprint_end = (shape.to_string(), shape.fingerprint());
}

#[test]
fn catalog_ledger_and_progress_have_limits() {
    let put = |tree: &str, key: &[u8], content: &[u8]| {
        let engine = format::store_of(&format::migrating(1), &[]);
        engine.tree(tree).unwrap().put(key, &sealed(key, 1, content)).unwrap();
        Store::options().background(false).open_in(Arc::new(engine))
    };
    for content in [
        // Engine "memory", revision, source of ids, then so many tables, or none and so many migrations.
        Bytes::default().text("memory").number(1).number(9).raw(&huge()).0,
        Bytes::default().text("memory").number(1).number(9).number(0).raw(&huge()).0,
        huge(),
        vec![255; 5000],
    ] {
        let refused = put("catalog", b"catalog", &content).unwrap_err();
        assert!(refused.is_corruption(), "{refused:?}");
    }
    let entry = 0_u64.to_be_bytes();
    for content in [Bytes::default().number(0).raw(&huge()).0, huge(), vec![255; 5000], Vec::new()] {
        let engine = MemoryEngine::new();
        let store = Store::options().open_in(Arc::new(engine.clone())).unwrap();
        for name in ["a", "b", "c", "d"] {
            let _made: Table<u64, UserV1> = store.table(name).unwrap();
        }
        store.close().unwrap();
        engine.tree("ledger").unwrap().put(&entry, &sealed(&entry, 1, &content)).unwrap();
        let store = Store::options().open_in(Arc::new(engine)).unwrap();
        let damaged = store.ledger().unwrap_err();
        assert!(matches!(damaged, Error::Corrupt { .. }), "{damaged:?}");
        assert_eq!(store.verify().unwrap().damage_count, 1);
        assert_eq!(store.table::<u64, UserV1>("a").unwrap().get(&1).unwrap(), None, "it goes on");
    }
    let progress = Bytes::default().raw(&[2]).raw(&huge()).0;
    let engine = format::store_of(&format::migrating(1), &[]);
    let key = b"progress/1/3";
    engine.tree("catalog").unwrap().put(key, &sealed(key, 1, &progress)).unwrap();
    let look = Store::options().read_only(true).open_in(Arc::new(engine.clone())).unwrap();
    assert!(!look.verify().unwrap().is_clean());
    look.close().unwrap();
    // An open that may write begins it again.
    let store = Store::options().background(false).open_in(Arc::new(engine)).unwrap();
    assert!(store.verify().unwrap().is_clean());
}

#[cfg(feature = "json")]
#[test]
fn an_import_has_limits() {
    let store = Store::options().open_in(Arc::new(MemoryEngine::new())).unwrap();
    let mut import = store.import(false);
    for line in [
        "[".repeat(1_000_000),
        format!("{{\"exuvia\":1,\"tables\":{}", "[".repeat(1_000_000)),
        format!("{{\"exuvia\":1,\"tables\":[{{\"table\":\"t\",\"key\":\"{}\"", "Option<".repeat(100_000)),
    ] {
        says(&import.line(&line).unwrap_err(), &["not a line of an export"]);
    }
}

#[cfg(all(unix, feature = "control"))]
#[test]
fn the_control_socket_has_limits() {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;
    let scratch = crate::kit::scratch::Scratch::new("control-limits");
    let store = Store::options().open_in(Arc::new(MemoryEngine::new())).unwrap();
    let at = scratch.path().join("c");
    store.control_socket(&at).unwrap();
    let ask = |line: &str| {
        let mut stream = UnixStream::connect(&at).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.write_all(b"\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    };
    for line in [
        "[".repeat(60_000),
        format!("{{\"exuvia\":1,\"verb\":{}", "{\"a\":".repeat(10_000)),
        "{\"exuvia\":1,\"verb\":\"backup\"}".to_owned(),
        "{\"exuvia\":1,\"verb\":\"backup\",\"to\":\"not/from/the/root\"}".to_owned(),
    ] {
        assert!(ask(&line).contains("\"kind\":\"request\""), "{}", &line[..20]);
    }
    assert!(ask("{\"exuvia\":1,\"verb\":\"status\"}").contains("\"ok\""), "it goes on");
}
