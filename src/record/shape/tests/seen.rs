//! Types that are seen without help.

use super::*;

#[derive(Serialize, Deserialize)]
enum Kind {
    Unit,
    New(u8),
    Tuple(i16, String),
    Named { at: u64, deep: Deep },
}

#[derive(Serialize, Deserialize)]
enum Deep {
    One(Inner),
    Two,
    Three(Inner),
}

#[derive(Serialize, Deserialize)]
enum Inner {
    A,
    B(char),
    C,
}

const KIND: &str = "enum Kind { Unit, New(u8), Tuple(i16, String,), Named { at: u64, deep: Deep } }; \
     enum Deep { One(Inner), Two, Three(Inner) }; enum Inner { A, B(char), C }";

#[test]
fn enums_are_complete_wherever_they_are() {
    #[derive(Serialize, Deserialize)]
    struct Record {
        option: Option<Kind>,
        list: Vec<Option<Box<Kind>>>,
        map: BTreeMap<String, (Kind, u8)>,
    }
    assert_eq!(text::<Kind>(), KIND);
    assert_eq!(
        text::<Record>(),
        format!(
            "struct Record {{ option: Option<Kind>, list: Vec<Option<Kind>>, map: Map<String, (Kind, u8,)> }}; {KIND}"
        )
    );
}

#[test]
fn simple_types_of_every_kind() {
    #[derive(Serialize, Deserialize)]
    struct Unit;
    #[derive(Serialize, Deserialize)]
    struct New(f32);
    #[derive(Serialize, Deserialize)]
    struct Two(i128, u128);
    type All = (bool, char, [u16; 4], (), Unit, New, Two, (i8, i32, i64, f64));
    assert_eq!(
        text::<All>(),
        "(bool, char, [u16; 4], (), Unit, New, Two, (i8, i32, i64, f64,),); \
         struct Unit; struct New(f32); struct Two(i128, u128,)"
    );
}

#[test]
fn the_standard_library_needs_no_samples() {
    assert_eq!(text::<NonZeroU32>(), "u32");
    assert_eq!(text::<Duration>(), "struct Duration { secs: u64, nanos: u32 }");
    assert_eq!(text::<SystemTime>(), "struct SystemTime { secs_since_epoch: u64, nanos_since_epoch: u32 }");
    assert_eq!(text::<IpAddr>(), "enum IpAddr { V4([u8; 4]), V6([u8; 16]) }");
    assert_eq!(text::<std::path::PathBuf>(), "String");
    assert_eq!(text::<Result<u8, String>>(), "enum Result { Ok(u8), Err(String) }");
    assert_eq!(text::<Vec<std::ops::Range<u8>>>(), "Vec<Range>; struct Range { start: u8, end: u8 }");
    assert_eq!(text::<HashMap<NonZeroU32, std::borrow::Cow<'static, str>>>(), "Map<u32, String>");
}

#[test]
fn one_name_for_several_types_is_no_conflict() {
    #[derive(Serialize, Deserialize)]
    struct Pair<T>(T, T);
    assert_eq!(
        text::<(Pair<u8>, Pair<String>)>(),
        "(Pair, Pair,); struct Pair(u8, u8,); struct Pair(String, String,)"
    );
}

#[test]
fn recursion_ends() {
    #[derive(Serialize, Deserialize)]
    struct Node {
        next: Option<Box<Node>>,
        children: Vec<Node>,
        kind: Inner,
    }
    #[derive(Serialize, Deserialize)]
    enum Expr {
        Add(Box<Expr>, Box<Expr>),
        Call { name: String, of: Vec<Expr>, node: Option<Box<Node>> },
        Not(Box<Expr>),
        Literal(i64),
    }
    assert_eq!(
        text::<Expr>(),
        "enum Expr { Add(Expr, Expr,), Call { name: String, of: Vec<Expr>, node: Option<Node> }, Not(Expr), Literal(i64) }; \
         struct Node { next: Option<Node>, children: Vec<Node>, kind: Inner }; enum Inner { A, B(char), C }"
    );
}

#[test]
fn attributes_that_rename_or_leave_out() {
    #[derive(Serialize, Deserialize)]
    #[serde(rename = "User", rename_all = "camelCase")]
    struct Renamed {
        first_name: String,
        #[serde(skip)]
        _cache: u8,
        #[serde(default)]
        age: u8,
    }
    #[derive(Serialize, Deserialize)]
    struct Aliased {
        first: u8,
        #[serde(alias = "a_name", alias = "z_name")]
        name: Aliases,
        last: u8,
    }
    #[derive(Serialize, Deserialize)]
    enum Aliases {
        #[serde(alias = "Zero")]
        A,
        B(u8),
        #[serde(alias = "Aa")]
        C {
            #[serde(alias = "y")]
            x: u8,
            w: u16,
        },
    }
    assert_eq!(text::<Renamed>(), "struct User { firstName: String, age: u8 }");
    assert_eq!(
        text::<Aliased>(),
        "struct Aliased { first: u8, a_name|name|z_name: Aliases, last: u8 }; \
         enum Aliases { A|Zero, B(u8), Aa|C { x|y: u8, w: u16 } }"
    );
}

#[test]
fn a_variant_that_takes_all_others_is_the_last() {
    #[derive(Serialize, Deserialize)]
    enum Alone {
        A,
        #[serde(other)]
        Rest,
    }
    #[derive(Serialize, Deserialize)]
    enum Aliased {
        #[serde(alias = "Zero")]
        A,
        B(u8),
        #[serde(other)]
        Rest,
    }
    assert_eq!(text::<Alone>(), "enum Alone { A, Rest }");
    assert_eq!(text::<Aliased>(), "enum Aliased { A|Zero, B(u8), Rest }");
}

#[test]
fn conversions_are_seen_through() {
    #[derive(Serialize, Deserialize, Clone)]
    #[serde(from = "(u8, i64)", into = "(u8, i64)")]
    struct Converted(u8, i64);
    impl From<(u8, i64)> for Converted {
        fn from((a, b): (u8, i64)) -> Self {
            Converted(a, b)
        }
    }
    impl From<Converted> for (u8, i64) {
        fn from(it: Converted) -> Self {
            (it.0, it.1)
        }
    }
    assert_eq!(text::<Vec<Converted>>(), "Vec<(u8, i64,)>");
}

#[test]
fn checked_text_and_bytes_are_guessed() {
    /// As the date and unique-id crates do it: from a string, or from 16 bytes.
    macro_rules! checked {
        ($ty:ident, $call:ident, $visit:ident, $of:ty, $good:expr) => {
            struct $ty;
            impl Serialize for $ty {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_unit()
                }
            }
            impl<'de> Deserialize<'de> for $ty {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    struct Visitor;
                    impl serde::de::Visitor<'_> for Visitor {
                        type Value = $ty;
                        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                            f.write_str("a good one")
                        }
                        fn $visit<E: serde::de::Error>(self, value: $of) -> Result<$ty, E> {
                            if $good(value) { Ok($ty) } else { Err(E::custom("bad")) }
                        }
                    }
                    deserializer.$call(Visitor)
                }
            }
        };
    }
    checked!(Date, deserialize_str, visit_str, &str, |text: &str| text.ends_with("Z"));
    checked!(Id, deserialize_bytes, visit_bytes, &[u8], |bytes: &[u8]| bytes.len() == 16);
    assert_eq!(text::<(Option<Date>, Vec<Id>)>(), "(Option<String>, Vec<bytes>,)");
}

#[test]
fn the_same_in_every_run_and_cheap() {
    let started = std::time::Instant::now();
    let first = shape::<(Kind, Vec<Kind>)>();
    let took = started.elapsed();
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert_eq!(first, shape::<(Kind, Vec<Kind>)>());
    let hex: String =
        shape::<(u8, Option<Kind>)>().fingerprint().iter().map(|b| format!("{b:02x}")).collect();
    // Stored in catalogs: may never change.
    assert_eq!(hex, "6002135d6f8fac895f1bce7a6bfdd9d9893354dc9aded93c23cffe198be6ea6b");
}

#[test]
fn a_shape_can_be_stored() {
    let shape = shape::<Kind>();
    let mut bytes = Vec::new();
    crate::record::codec::encode(&shape, &mut bytes).unwrap();
    assert_eq!(crate::record::codec::decode::<Shape>(&bytes).unwrap(), shape);
}
