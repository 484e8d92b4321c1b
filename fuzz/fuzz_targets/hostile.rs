//! Hostile lengths and nesting: arbitrary bytes as values of deep and long types, and arbitrary lines as an import.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::{Store, codec};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Debug, Arbitrary)]
struct Input {
    bytes: Vec<u8>,
    /// So that depth costs the fuzzer nothing.
    repeat: u16,
    repeated: u8,
    lines: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Tree>),
    List(Vec<Tree>),
    Named(BTreeMap<String, Tree>),
    Maybe(Option<Box<Tree>>),
    Text(String),
}

/// What decodes encodes, to bytes that decode as the same again. Nothing takes more memory than its bytes allow: the fuzzer's
/// limit looks after that.
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let _integers_of_fixed_length = codec::decode_bincode1::<T>(bytes);
    if let Ok(value) = codec::decode::<T>(bytes) {
        let mut again = Vec::new();
        codec::encode(&value, &mut again).expect("what was read can be written");
        assert_eq!(codec::decode::<T>(&again).expect("and read again"), value);
    }
}

fuzz_target!(|input: Input| {
    let mut bytes = vec![input.repeated; usize::from(input.repeat)];
    bytes.extend_from_slice(&input.bytes);
    check::<Tree>(&bytes);
    check::<Vec<Tree>>(&bytes);
    check::<Vec<()>>(&bytes);
    check::<Vec<Vec<Vec<()>>>>(&bytes);
    check::<BTreeMap<Vec<u8>, Vec<String>>>(&bytes);
    check::<(u128, Vec<[u64; 4]>, Option<Option<Box<str>>>)>(&bytes);
    check::<exuvia::shape::Shape>(&bytes);
    if let Ok(shape) = codec::decode::<exuvia::shape::Shape>(&bytes) {
        let _ = (shape.fingerprint(), shape.to_string());
    }
    let store = Store::options().background(false).open_in(Arc::new(MemoryEngine::new())).unwrap();
    for trial in [true, false] {
        let mut import = store.import(trial);
        let mut taken = 0;
        for line in input.lines.iter().take(8) {
            taken += u32::from(import.line(line).is_ok());
        }
        let deep = "[".repeat(usize::from(input.repeat));
        assert!(import.line(&format!("{{\"exuvia\":1,\"tables\":{deep}")).is_err());
        let _ = (import.finish(), taken);
    }
    assert!(store.verify().unwrap().is_clean());
});
