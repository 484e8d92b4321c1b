//! Round trips, limits on both sides, and hostile input.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Unit,
    One(i128),
    Two(char, String),
    Named { list: Vec<u16>, map: BTreeMap<String, f64> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct All {
    kinds: Vec<Kind>,
    maybe: Option<Box<All>>,
    tuple: (u8, [i64; 3], ()),
    text: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Node {
    next: Option<Box<Node>>,
}

/// Recursion through a list alone, without a struct that would count.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Tree(Vec<Tree>);

fn chain(length: u32) -> Node {
    (1..length).fold(Node { next: None }, |next, _| Node { next: Some(Box::new(next)) })
}

fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, &mut out).unwrap();
    out
}

fn all() -> All {
    let map = BTreeMap::from([("a".to_string(), -0.5), (String::new(), f64::MAX)]);
    let kinds = vec![
        Kind::Unit,
        Kind::One(i128::MIN),
        Kind::Two('é', "x\0y".into()),
        Kind::Named { list: vec![0, 1, 300], map },
    ];
    let inner = All { kinds: vec![], maybe: None, tuple: (1, [2, 3, 4], ()), text: String::new() };
    All {
        kinds,
        maybe: Some(Box::new(inner)),
        tuple: (255, [i64::MIN, 0, i64::MAX], ()),
        text: "text".into(),
    }
}

#[test]
fn the_limits_do_not_change_the_bytes() {
    let ours = bytes(&all());
    assert_eq!(ours, bincode::serde::encode_to_vec(all(), bincode::config::standard()).unwrap());
    assert_eq!(decode::<All>(&ours).unwrap(), all());
}

#[test]
fn encode_appends_and_leaves_no_trace_of_a_failure() {
    #[derive(Serialize)]
    struct Skips {
        first: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        maybe: Option<u8>,
    }
    let mut out = vec![9];
    encode(&1u8, &mut out).unwrap();
    let error = encode(&Skips { first: 7, maybe: None }, &mut out).unwrap_err();
    assert!(error.message().contains("`maybe`"), "{error}");
    assert_eq!(out, [9, 1]);
    encode(&Skips { first: 7, maybe: Some(2) }, &mut out).unwrap();
}

#[test]
fn every_byte_must_be_used_and_none_be_missing() {
    let whole = bytes(&all());
    for cut in 0..whole.len() {
        assert!(decode::<All>(&whole[..cut]).is_err());
    }
    let mut longer = whole;
    longer.push(0);
    let error = decode::<All>(&longer).unwrap_err();
    assert!(error.message().contains("takes"), "{error}");
}

#[test]
fn size_is_limited_on_both_sides() {
    let fits = "x".repeat(VALUE_BYTES_MAX - 5);
    assert_eq!(decode::<String>(&bytes(&fits)).unwrap(), fits);
    let mut out = Vec::new();
    assert!(encode(&(fits, 1u8), &mut out).is_err());
    assert!(out.is_empty());
    assert!(decode::<Vec<u8>>(&vec![0; VALUE_BYTES_MAX + 1]).is_err());
}

#[test]
fn depth_is_limited_on_both_sides_alike() {
    let deepest = chain(DEPTH_MAX / 2);
    assert_eq!(decode::<Node>(&bytes(&deepest)).unwrap(), deepest);
    assert!(
        encode(&chain(DEPTH_MAX / 2 + 1), &mut Vec::new()).unwrap_err().message().contains("nests deeper")
    );
    for len in [DEPTH_MAX as usize / 2, 10_000, VALUE_BYTES_MAX] {
        let error = decode::<Node>(&vec![1; len]).unwrap_err();
        assert!(error.message().contains("nests deeper"), "{error}");
        assert!(decode::<Tree>(&vec![1; len.max(200)]).unwrap_err().message().contains("nests deeper"));
    }
}

#[test]
fn depth_fits_a_small_stack() {
    // The default of a Rust thread is 2 MiB; a tenth of it must do, also without optimisation.
    let run = || {
        assert!(decode::<Node>(&[1; 10_000]).is_err());
        assert!(encode(&chain(DEPTH_MAX), &mut Vec::new()).is_err());
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
}

#[test]
fn hostile_lengths_end_soon() {
    let huge = [0xfd, 255, 255, 255, 255, 255, 255, 255, 127];
    assert!(decode::<String>(&huge).is_err());
    assert!(decode::<Vec<u8>>(&huge).is_err());
    assert!(decode::<Vec<()>>(&huge).unwrap_err().message().contains("elements"));
    assert!(decode::<Vec<Vec<u64>>>(&huge).is_err());
    assert!(decode::<BTreeMap<(), ()>>(&huge).unwrap_err().message().contains("elements"));
    // Zero-sized elements that were written can be read.
    assert_eq!(decode::<Vec<()>>(&bytes(&vec![(); 100_000])).unwrap().len(), 100_000);
}

#[test]
fn self_describing_types_are_refused_in_words() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u8),
    }
    let error = decode::<Either>(&bytes(&Either::Number(1))).unwrap_err();
    assert!(error.message().contains("untagged"), "{error}");
}

proptest::proptest! {
    #[test]
    fn any_bytes_decode_or_fail(input in proptest::collection::vec(0u8..8, 0..64)) {
        if let Ok(value) = decode::<All>(&input) {
            let mut again = Vec::new();
            encode(&value, &mut again).unwrap();
            proptest::prop_assert_eq!(decode::<All>(&again).unwrap(), value);
        }
    }
}
