use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, to_value};

use super::{decode, decode_key, encode, encode_key, key_of_text};
use crate::CastError;
use crate::record::codec;
use crate::record::key::Key;
use crate::record::shape::{KeyType, Shape};
use crate::record::version::{Origin, Version};

/// Any type as the record of a version.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Of<T>(T);

trait Record: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static {}
impl<T: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static> Record for T {}

impl<T: Record> Version for Of<T> {
    const VERSION: u32 = 1;
    type Previous = Origin;
    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }
    fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

fn shape<T: Record>() -> Shape {
    Shape::of::<Of<T>>().unwrap()
}

/// The JSON of a value, which turns into the same bytes again, also by way of text.
fn shown<T: Record>(value: &T) -> Value {
    let shape = shape::<T>();
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes).unwrap();
    let shown = decode(&shape, &bytes).unwrap();
    assert_eq!(encode(&shape, &shown).unwrap(), bytes, "{shown}");
    let text: Value = serde_json::from_str(&shown.to_string()).unwrap();
    assert_eq!(encode(&shape, &text).unwrap(), bytes, "{text}");
    shown
}

/// And is what `serde_json` makes of it.
fn same<T: Record>(value: T) {
    assert_eq!(shown(&value), to_value(&value).unwrap());
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Color {
    Red,
    Green,
    Blue,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Tagged {
    Unit,
    Newtype(u16),
    Tuple(i8, String),
    Struct { at: u64, inner: Option<Box<Tagged>> },
    List(Vec<Tagged>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Id(i64);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pair(u8, Option<char>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Everything {
    signed: (i8, i16, i32, i64),
    unsigned: (u8, u16, u32, u64),
    floats: (f32, f64),
    truth: bool,
    letter: char,
    text: String,
    unit: (),
    marker: Unit,
    id: Id,
    pair: Pair,
    array: [u16; 3],
    list: Vec<Option<String>>,
    set: BTreeSet<u8>,
    by_text: BTreeMap<String, Vec<u8>>,
    by_id: BTreeMap<Id, Color>,
    by_color: BTreeMap<Color, bool>,
    by_letter: BTreeMap<char, BTreeMap<u64, ()>>,
    tagged: Tagged,
    result: Result<u8, String>,
    wait: Duration,
}

fn tagged() -> impl Strategy<Value = Tagged> {
    let leaf = prop_oneof![
        Just(Tagged::Unit),
        any::<u16>().prop_map(Tagged::Newtype),
        any::<(i8, String)>().prop_map(|(a, b)| Tagged::Tuple(a, b)),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            (any::<u64>(), proptest::option::of(inner.clone()))
                .prop_map(|(at, inner)| Tagged::Struct { at, inner: inner.map(Box::new) }),
            proptest::collection::vec(inner, 0..3).prop_map(Tagged::List),
        ]
    })
}

fn color() -> impl Strategy<Value = Color> {
    prop_oneof![Just(Color::Red), Just(Color::Green), Just(Color::Blue)]
}

fn map<K: Ord + std::fmt::Debug, V: std::fmt::Debug>(
    key: impl Strategy<Value = K>,
    value: impl Strategy<Value = V>,
) -> impl Strategy<Value = BTreeMap<K, V>> {
    proptest::collection::btree_map(key, value, 0..4)
}

fn everything() -> impl Strategy<Value = Everything> {
    let simple = any::<((i8, i16, i32, i64), (u8, u16, u32, u64), bool, char, String, i64)>();
    let floats =
        (prop::num::f32::NORMAL | prop::num::f32::ZERO, prop::num::f64::NORMAL | prop::num::f64::ZERO);
    let lists = any::<((u8, Option<char>), [u16; 3], Vec<Option<String>>, BTreeSet<u8>)>();
    let maps = (
        map(any::<String>(), any::<Vec<u8>>()),
        map(any::<i64>().prop_map(Id), color()),
        map(color(), any::<bool>()),
        map(any::<char>(), map(any::<u64>(), Just(()))),
    );
    let rest = (tagged(), any::<Result<u8, String>>(), any::<u32>());
    (simple, floats, lists, maps, rest).prop_map(|(simple, floats, lists, maps, rest)| Everything {
        signed: simple.0,
        unsigned: simple.1,
        floats,
        truth: simple.2,
        letter: simple.3,
        text: simple.4,
        unit: (),
        marker: Unit,
        id: Id(simple.5),
        pair: Pair(lists.0.0, lists.0.1),
        array: lists.1,
        list: lists.2,
        set: lists.3,
        by_text: maps.0,
        by_id: maps.1,
        by_color: maps.2,
        by_letter: maps.3,
        tagged: rest.0,
        result: rest.1,
        wait: Duration::from_millis(u64::from(rest.2)),
    })
}

proptest! {
    #[test]
    fn json_is_what_serde_json_makes_of_the_type(value in everything()) {
        same(value);
    }

    #[test]
    fn every_float_comes_back(wide in any::<u64>(), narrow in any::<u32>()) {
        shown(&(f64::from_bits(wide), f32::from_bits(narrow)));
    }

    #[test]
    fn integers_of_128_bits_come_back(signed in any::<i128>(), unsigned in any::<u128>(), small in any::<i64>()) {
        shown(&(signed, unsigned, i128::from(small)));
        shown(&BTreeMap::from([(signed, 1_u8), (i128::from(small), 2)]));
    }

    /// Any bytes under any of these shapes: no panic, and what is read turns into JSON that is read as the same.
    #[test]
    fn hostile_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let shapes = [
            shape::<Everything>(), shape::<Tagged>(), shape::<BTreeMap<String, Tagged>>(), shape::<Vec<Option<()>>>(),
            shape::<BTreeMap<u16, BTreeMap<bool, f32>>>(), shape::<Vec<(char, u128)>>(), shape::<[[(); 9]; 9]>(),
        ];
        for shape in &shapes {
            if let Ok(value) = decode(shape, &bytes) {
                let again = encode(shape, &value).unwrap();
                prop_assert_eq!(decode(shape, &again).unwrap(), value);
            }
        }
    }

    #[test]
    fn hostile_json_is_an_error(value in any_json()) {
        for shape in [shape::<Everything>(), shape::<Tagged>(), shape::<BTreeMap<Id, Option<Option<u8>>>>()] {
            let _ = encode(&shape, &value);
        }
        for key in ["u8", "(String, Option<Option<i8>>)", "[u8; 4]", "custom", "char", "i128"] {
            let key: KeyType = key.parse().unwrap();
            if let Ok(bytes) = encode_key(&key, &value) {
                decode_key(&key, &bytes).unwrap();
            }
        }
    }

    #[test]
    fn keys_come_back(a in any::<(u64, i16, bool, char)>(), b in any::<(String, Vec<u8>, Option<u32>)>(),
                      c in any::<([u8; 5], i128, u128)>(), d in any::<(u64, u32)>()) {
        key(a);
        key(b.clone());
        key((b.0, Some(Some(7_u8)), None::<Option<u8>>));
        key(c);
        key((f64::from_bits(d.0), f32::from_bits(d.1)));
    }

    #[test]
    fn hostile_keys_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        for key in ["u8", "(String, Option<Option<i8>>)", "[u8; 4]", "custom", "(Vec<u8>, bool)", "char"] {
            let key: KeyType = key.parse().unwrap();
            if let Ok(value) = decode_key(&key, &bytes) {
                prop_assert_eq!(encode_key(&key, &value).unwrap(), bytes.clone());
            }
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[A-Za-z0-9:]{0,8}".prop_map(Value::from),
        prop_oneof![Just("Some"), Just("Unit"), Just("hex"), Just("NaN:1")].prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            map("(Some|Struct|at|inner|hex|1|Unit)", inner)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn key<K: Key>(key: K) {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    let value = decode_key(&K::key_type(), &bytes).unwrap();
    let text: Value = serde_json::from_str(&value.to_string()).unwrap();
    assert_eq!(encode_key(&K::key_type(), &text).unwrap(), bytes, "{value}");
}

#[test]
fn what_serde_json_would_lose_is_written_differently() {
    assert_eq!(shown(&Some(None::<u8>)), json!({ "Some": null }));
    assert_eq!(shown(&Some(Some(3_u8))), json!({ "Some": 3 }));
    assert_eq!(shown(&[Some(()), None]), json!([{ "Some": null }, null]));
    assert_eq!(shown(&Some(Unit)), json!({ "Some": null }));
    assert_eq!(shown(&(f64::NAN, f64::NEG_INFINITY, f32::INFINITY)), json!(["NaN", "-Infinity", "Infinity"]));
    assert_eq!(shown(&(u128::MAX, i128::from(-5))), json!(["340282366920938463463374607431768211455", -5]));
    assert_eq!(shown(&BTreeMap::from([((1_u8, 2_u8), 3_u8)])), json!([[[1, 2], 3]]));
    // Numbers are in the order of numbers, also if the text is in another one.
    assert_eq!(shown(&BTreeMap::from([(9_i8, 1), (10, 2), (-1, 3)])), json!({ "9": 1, "10": 2, "-1": 3 }));
}

/// A map that is not in order, or has a key twice, as a `HashMap` or a list writes it.
#[test]
fn a_map_out_of_order_keeps_its_order() {
    let shape = shape::<BTreeMap<String, u8>>();
    for pairs in [vec![("b", 1_u8), ("a", 2)], vec![("a", 1), ("a", 2)]] {
        let mut bytes = Vec::new();
        codec::encode(&pairs, &mut bytes).unwrap();
        let value = decode(&shape, &bytes).unwrap();
        assert_eq!(value, to_value(&pairs).unwrap());
        assert_eq!(encode(&shape, &value).unwrap(), bytes);
    }
}

#[test]
fn limits_end_what_would_not_end() {
    // A list of 2^60 units in nine bytes.
    let mut bytes = vec![253];
    bytes.extend_from_slice(&(1_u64 << 60).to_le_bytes());
    let e = decode(&shape::<Vec<()>>(), &bytes).unwrap_err();
    assert!(e.message().contains("empty elements"), "{e}");
    // Text that claims more than there is.
    let e = decode(&shape::<String>(), &bytes).unwrap_err();
    assert!(e.message().contains("do not fit"), "{e}");
    // A box in a box in a box, one byte each.
    let bytes: Vec<u8> = [3_u8, 0, 1].repeat(2000);
    let e = decode(&shape::<Tagged>(), &bytes).unwrap_err();
    assert!(e.message().contains("256 levels"), "{e}");
    let mut deep = json!("Unit");
    for _ in 0..2000 {
        deep = Value::Object([("List".to_owned(), Value::Array(vec![deep]))].into_iter().collect());
    }
    assert!(encode(&shape::<Tagged>(), &deep).unwrap_err().message().contains("256 levels"));
    // Dropping it by recursion is the test's own affair.
    std::mem::forget(deep);
}

#[test]
fn the_error_says_where() {
    let shape = shape::<(Pair, Vec<Tagged>)>();
    let told = |value: Value| encode(&shape, &value).unwrap_err().to_string();
    assert_eq!(
        told(json!([[1, "x"], ["Unit", { "Struct": { "at": -1, "inner": null } }]])),
        "1: 1: Struct: at: expected a u64, found -1"
    );
    assert_eq!(told(json!([[1, "xy"], []])), "0: 1: expected one character, found \"xy\"");
    assert_eq!(told(json!([[1, null], ["Wat"]])), "1: 0: `Tagged` has no variant \"Wat\"");
    assert_eq!(
        told(json!([[1, null], [{ "Struct": { "inner": null } }]])),
        "1: 0: Struct: the field \"at\" is missing"
    );
    assert!(
        told(json!([[1, null], [{ "Struct": { "at": 1, "inner": null, "x": 1 } }]]))
            .contains("no field \"x\"")
    );
    let e = decode(&shape, &[1, 0, 0, 9]).unwrap_err();
    assert_eq!(e.message(), "1 bytes are left over");
}

#[test]
fn keys_are_typed_as_their_type_wants() {
    let typed = |key: &str, text: &str| {
        let key: KeyType = key.parse().unwrap();
        key_of_text(&key, text).and_then(|value| encode_key(&key, &value))
    };
    let bytes = |key: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        key(&mut out);
        out
    };
    assert_eq!(typed("u64", "7").unwrap(), 7_u64.to_be_bytes());
    assert_eq!(typed("u128", "340282366920938463463374607431768211455").unwrap(), [255; 16]);
    assert_eq!(typed("String", "7").unwrap(), bytes(&|out| "7".to_owned().encode(out)));
    assert_eq!(typed("[u8; 2]", "00fF").unwrap(), [0, 255]);
    assert_eq!(typed("f64", "NaN").unwrap(), bytes(&|out| f64::NAN.encode(out)));
    assert_eq!(
        typed("(String, u8)", "[\"a\", 1]").unwrap(),
        bytes(&|out| ("a".to_owned(), 1_u8).encode(out))
    );
    assert_eq!(typed("custom", "0102").unwrap(), [1, 2]);
    assert_eq!(typed("Option<u8>", "null").unwrap(), [0]);
    for (key, text) in
        [("u8", "256"), ("u64", "x"), ("[u8; 2]", "00"), ("Vec<u8>", "0g"), ("char", "ab"), ("u8", "-1")]
    {
        assert!(typed(key, text).is_err(), "{key} {text}");
    }
}
