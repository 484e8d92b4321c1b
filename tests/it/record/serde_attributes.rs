//! Every attribute of serde that lets the two sides of a type part: a type is refused when its table is opened, with the
//! place and the remedy, or every value of it is read back as it was written.

#![expect(dead_code, reason = "fields that serde leaves out")]

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::{Error, Plain, Store, Table};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn store() -> Store {
    Store::options().open_in(Arc::new(MemoryEngine::new())).unwrap()
}

trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {}
impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Record for T {}

/// What the table of a type says when it is opened; a refused open leaves no table.
fn refusal<T: Record>() -> Option<String> {
    let store = store();
    let opened: exuvia::Result<Table<u64, Plain<T>>> = store.table("t");
    match opened {
        Ok(_) => None,
        Err(Error::Shape { version: 1, difference, .. }) => {
            assert!(store.tables().is_empty(), "a refused type left a table");
            Some(difference)
        }
        Err(other) => panic!("{other}"),
    }
}

#[derive(Serialize, Deserialize)]
struct Named<T> {
    before: u8,
    inner: T,
    after: String,
}

#[derive(Serialize, Deserialize)]
enum Variants<T> {
    Unit,
    New(T),
    Tuple(u8, T),
    Struct { before: bool, inner: T },
}

/// The type is refused wherever it is in a record, with all `parts` in the message.
fn refused<T: Record>(parts: &[&str]) {
    let check = |place: &str, found: Option<String>| {
        let Some(found) = found else {
            panic!("{} is accepted {place}", std::any::type_name::<T>());
        };
        for part in parts {
            assert!(found.contains(part), "{place}: {part:?} is not in: {found}");
        }
    };
    check("alone", refusal::<T>());
    check("in an option", refusal::<Option<T>>());
    check("in a list", refusal::<Vec<T>>());
    check("in a map", refusal::<BTreeMap<u8, T>>());
    check("in a tuple", refusal::<(bool, T, u8)>());
    check("in an array", refusal::<[T; 2]>());
    check("in a box", refusal::<Box<T>>());
    check("in a field", refusal::<Named<T>>());
    check("in variants", refusal::<Variants<T>>());
    check("deep", refusal::<Named<Option<Vec<Variants<(u8, Option<T>)>>>>>());
}

/// The type is accepted wherever it is, and these values are read back.
fn accepted<T: Record + Clone + PartialEq + Debug>(values: &[T]) {
    let store = store();
    let table: Table<u64, Plain<T>> = store.table("t").unwrap();
    for (key, value) in values.iter().enumerate() {
        table.put(&(key as u64), &Plain(value.clone())).unwrap();
    }
    for (key, value) in values.iter().enumerate() {
        assert_eq!(table.get(&(key as u64)).unwrap().map(Plain::into_inner).as_ref(), Some(value));
    }
    assert_eq!(store.verify().unwrap().damage, Vec::<String>::new());
    for refused in [
        refusal::<Option<T>>(),
        refusal::<Vec<T>>(),
        refusal::<BTreeMap<u8, T>>(),
        refusal::<(bool, T, u8)>(),
        refusal::<Named<T>>(),
        refusal::<Variants<T>>(),
        refusal::<Named<Option<Vec<Variants<(u8, Option<T>)>>>>>(),
    ] {
        assert_eq!(refused, None);
    }
}

#[test]
fn variants_that_are_skipped() {
    #[derive(Serialize, Deserialize)]
    enum SkippedInside {
        Queued,
        #[serde(skip)]
        _InMemoryOnly,
        Running,
        Done,
    }
    refused::<SkippedInside>(&[
        "`Running` of `SkippedInside`",
        "number 2, which is read as `Done`",
        "behind all others",
    ]);

    #[derive(Serialize, Deserialize)]
    enum SkippedFirst {
        #[serde(skip)]
        _InMemoryOnly,
        Done,
    }
    refused::<SkippedFirst>(&["`Done` of `SkippedFirst`", "number 1", "behind all others"]);

    #[derive(Serialize, Deserialize)]
    enum NotRead {
        A,
        #[serde(skip_deserializing)]
        _B(u8),
        C {
            at: u8,
        },
    }
    refused::<NotRead>(&["`C` of `NotRead`", "number 2", "behind all others"]);

    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    enum SkippedLast {
        Queued,
        Done(u8),
        #[serde(skip)]
        InMemoryOnly,
    }
    accepted(&[SkippedLast::Queued, SkippedLast::Done(7)]);
    let table: Table<u64, Plain<SkippedLast>> = store().table("t").unwrap();
    let put = table.put(&1, &Plain(SkippedLast::InMemoryOnly));
    assert!(matches!(put, Err(Error::Codec { .. })), "{put:?}");
    assert!(table.is_empty().unwrap());

    // Still read, no longer written: its number stays.
    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    enum NotWritten {
        A,
        #[serde(skip_serializing)]
        Retired,
        C(String),
    }
    accepted(&[NotWritten::A, NotWritten::C("c".into())]);
}

#[test]
fn fields_that_one_side_skips() {
    #[derive(Serialize, Deserialize)]
    struct NotWritten {
        name: String,
        #[serde(default, skip_serializing)]
        password: String,
    }
    refused::<NotWritten>(&["the field `password` of `NotWritten` is read and not written", "write `skip`"]);

    #[derive(Serialize, Deserialize)]
    struct NotRead {
        #[serde(skip_deserializing)]
        cache: u64,
        name: String,
    }
    refused::<NotRead>(&["the field `cache` of `NotRead` is written and not read", "write `skip`"]);

    #[derive(Serialize, Deserialize)]
    struct Both {
        a: u8,
        #[serde(default, skip_serializing)]
        b: u8,
        c: u8,
        #[serde(skip_deserializing)]
        d: u8,
    }
    refused::<Both>(&["the field `d` of `Both` is written", "`b` is read and not written", "write `skip`"]);

    #[derive(Serialize, Deserialize)]
    struct Flags {
        #[serde(default, skip_serializing)]
        old: bool,
        #[serde(skip_deserializing)]
        new: bool,
    }
    refused::<Flags>(&["the field `new` of `Flags`", "`old` is read and not written"]);

    #[derive(Serialize, Deserialize)]
    struct Unnamed(u8, #[serde(skip_serializing)] u16, String);
    refused::<Unnamed>(&["2 unnamed members are written and 3 are read"]);

    #[derive(Serialize, Deserialize)]
    struct UnnamedNotRead(u8, #[serde(skip_deserializing)] u16, String);
    refused::<UnnamedNotRead>(&["3 unnamed members are written and 2 are read"]);

    #[derive(Serialize, Deserialize)]
    enum InVariants {
        A,
        Struct {
            #[serde(default, skip_serializing)]
            hidden: u8,
        },
    }
    refused::<InVariants>(&["the field `hidden` of `Struct` is read and not written"]);

    #[derive(Serialize, Deserialize)]
    enum InTupleVariants {
        A(u8),
        B(u8, #[serde(default, skip_serializing)] u8),
    }
    refused::<InTupleVariants>(&["are written"]);

    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    struct SkippedByBoth {
        name: String,
        #[serde(skip)]
        cache: u8,
        #[serde(skip_serializing, skip_deserializing)]
        other: u8,
        #[serde(default)]
        age: u8,
    }
    accepted(&[SkippedByBoth { name: "a".into(), cache: 0, other: 0, age: 9 }]);
    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    struct UnnamedSkipped(u8, #[serde(skip)] u16, String);
    accepted(&[UnnamedSkipped(1, 0, "x".into())]);
}

#[test]
fn fields_that_some_values_skip() {
    #[derive(Serialize, Deserialize)]
    struct None {
        #[serde(skip_serializing_if = "Option::is_none")]
        mail: Option<String>,
        age: u8,
    }
    let says = |field: &str| format!("`skip_serializing_if` leaves out the field `{field}`");
    refused::<None>(&[&says("mail"), "`Option`, or remove the attribute"]);

    #[derive(Serialize, Deserialize)]
    struct Empty {
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        tags: Vec<u8>,
    }
    refused::<Empty>(&[&says("tags")]);

    #[derive(Serialize, Deserialize)]
    struct NoText {
        #[serde(skip_serializing_if = "String::is_empty", default)]
        text: String,
    }
    refused::<NoText>(&[&says("text")]);

    fn is_zero(number: &u64) -> bool {
        *number == 0
    }
    #[derive(Serialize, Deserialize)]
    struct Zero {
        last: Option<Vec<bool>>,
        #[serde(skip_serializing_if = "is_zero", default)]
        count: u64,
    }
    refused::<Zero>(&[&says("count")]);

    #[derive(Serialize, Deserialize)]
    struct True {
        #[serde(skip_serializing_if = "Clone::clone", default)]
        usual: bool,
    }
    refused::<True>(&[&says("usual")]);

    #[derive(Serialize, Deserialize)]
    struct Unnamed(u8, #[serde(skip_serializing_if = "Option::is_none", default)] Option<u8>);
    refused::<Unnamed>(&["1 unnamed members are written and 2 are read"]);

    #[derive(Serialize, Deserialize)]
    enum InVariants {
        A,
        B {
            #[serde(skip_serializing_if = "Option::is_none")]
            maybe: Option<u8>,
        },
        C(u8, #[serde(skip_serializing_if = "Option::is_none", default)] Option<u8>),
    }
    refused::<InVariants>(&[&says("maybe")]);
    #[derive(Serialize, Deserialize)]
    enum InTupleVariants {
        A,
        C(u8, #[serde(skip_serializing_if = "Option::is_none", default)] Option<u8>),
    }
    refused::<InTupleVariants>(&["unnamed members are written"]);

    // A predicate for a value that nobody invents is found by the codec, at the put that would lose it.
    fn is_seven(number: &u64) -> bool {
        *number == 7
    }
    #[derive(Serialize, Deserialize)]
    struct Seven {
        #[serde(skip_serializing_if = "is_seven", default)]
        count: u64,
    }
    let table: Table<u64, Plain<Seven>> = store().table("t").unwrap();
    let put = table.put(&1, &Plain(Seven { count: 7 }));
    assert!(matches!(&put, Err(Error::Codec { reason, .. }) if reason.contains("`count`")), "{put:?}");
    assert!(table.is_empty().unwrap());
}

#[test]
fn representations_of_enums_and_tags() {
    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind")]
    struct Tagged {
        name: String,
    }
    refused::<Tagged>(&["the field `kind` of `Tagged` is written and not read", "no `tag` on a struct"]);

    let self_describing = "which bincode cannot answer";
    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Internally {
        A { at: u8 },
    }
    refused::<Internally>(&[self_describing]);
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        A(u8),
        B(String),
    }
    refused::<Untagged>(&[self_describing]);
    #[derive(Serialize, Deserialize)]
    struct Rest {
        at: u8,
    }
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        rest: Rest,
    }
    refused::<Flat>(&[self_describing]);
    #[derive(Serialize, Deserialize)]
    enum OneUntagged {
        A(u8),
        #[serde(untagged)]
        B(String),
    }
    refused::<OneUntagged>(&[]);

    #[derive(Serialize, Deserialize)]
    #[serde(tag = "t", content = "c")]
    enum Adjacently {
        Unit,
        Number(u8),
        Text(String),
    }
    refused::<Adjacently>(&["explicit"]);
}

mod plus_one {
    use super::*;
    pub fn serialize<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(value.wrapping_add(1))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        Ok(u32::deserialize(deserializer)?.wrapping_sub(1))
    }
}

#[test]
fn conversions_of_one_side() {
    #[derive(Serialize, Deserialize)]
    struct WrittenOtherwise {
        #[serde(serialize_with = "plus_one::serialize")]
        count: u32,
    }
    refused::<WrittenOtherwise>(&["was written and", "must undo each other"]);
    #[derive(Serialize, Deserialize)]
    struct ReadOtherwise {
        #[serde(deserialize_with = "plus_one::deserialize")]
        count: u32,
    }
    refused::<ReadOtherwise>(&["was written and", "must undo each other"]);
    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    struct ByBoth {
        #[serde(with = "plus_one")]
        count: u32,
    }
    accepted(&[ByBoth { count: 0 }, ByBoth { count: 41 }]);

    fn as_text<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }
    #[derive(Serialize, Deserialize)]
    struct WrittenAsText {
        name: u8,
        #[serde(serialize_with = "as_text")]
        count: u32,
    }
    refused::<WrittenAsText>(&["count`", "`String` is written where `u32` is read"]);

    #[derive(Serialize, Deserialize, Clone)]
    #[serde(into = "(u8, u16)")]
    struct Into {
        a: u16,
        b: u8,
    }
    impl From<Into> for (u8, u16) {
        fn from(it: Into) -> Self {
            (it.b, it.a)
        }
    }
    refused::<Into>(&["`u8` is written where `u16` is read"]);

    #[derive(Serialize, Deserialize, Clone)]
    #[serde(from = "i64")]
    struct From1(i32);
    impl From<i64> for From1 {
        fn from(it: i64) -> Self {
            From1(it as i32)
        }
    }
    // Narrow integers are read as wide ones.
    assert_eq!(refusal::<From1>(), None);
    #[derive(Serialize, Deserialize, Clone)]
    #[serde(try_from = "i16")]
    struct TryFrom1(i32);
    impl TryFrom<i16> for TryFrom1 {
        type Error = String;
        fn try_from(it: i16) -> Result<Self, String> {
            Ok(TryFrom1(it.into()))
        }
    }
    refused::<TryFrom1>(&["`i32` is written where `i16` is read"]);

    /// Swaps two numbers of one type on the way in only: right in names and types.
    #[derive(Serialize, Deserialize, Clone)]
    #[serde(from = "(u8, u8)")]
    struct Swapped(u8, u8);
    impl From<(u8, u8)> for Swapped {
        fn from((a, b): (u8, u8)) -> Self {
            Swapped(b, a)
        }
    }
    refused::<Swapped>(&["was written and", "must undo each other"]);

    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    #[serde(from = "(u8, String)", into = "(u8, String)")]
    struct ThereAndBack {
        text: String,
        number: u8,
    }
    impl From<(u8, String)> for ThereAndBack {
        fn from((number, text): (u8, String)) -> Self {
            ThereAndBack { text, number }
        }
    }
    impl From<ThereAndBack> for (u8, String) {
        fn from(it: ThereAndBack) -> Self {
            (it.number, it.text)
        }
    }
    accepted(&[ThereAndBack { text: "a".into(), number: 3 }]);
}

/// A codec of one's own may have any serde type, must read what it writes, and has a name.
#[test]
fn codecs() {
    use exuvia::{CastError, Origin, Version};
    fn json<T: Serialize>(it: &T, out: &mut Vec<u8>) -> Result<(), CastError> {
        serde_json::to_writer(out, it).map_err(|e| CastError::new(e.to_string()))
    }
    fn of_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CastError> {
        serde_json::from_slice(bytes).map_err(|e| CastError::new(e.to_string()))
    }
    macro_rules! coded {
        ($type:ident, $codec:expr, $encode:expr) => {
            impl Version for $type {
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
                    $encode(self, out)
                }
                fn decode(bytes: &[u8]) -> Result<Self, CastError> {
                    of_json(bytes)
                }
            }
        };
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Json {
        #[serde(skip_serializing_if = "Option::is_none")]
        maybe: Option<u8>,
    }
    coded!(Json, "json", json);
    let store = store();
    let table: Table<u64, Json> = store.table("json").unwrap();
    table.put(&1, &Json { maybe: None }).unwrap();
    assert_eq!(table.get(&1).unwrap(), Some(Json { maybe: None }));
    assert!(store.verify().unwrap().is_clean());

    #[derive(Serialize, Deserialize)]
    struct Unnamed(u8);
    coded!(Unnamed, exuvia::codec::BINCODE, json);
    let error = store.table::<u64, Unnamed>("unnamed").unwrap_err().to_string();
    assert!(error.contains("give its codec a name of its own"), "{error}");

    // So it is for a version that is new to a table.
    #[derive(Serialize, Deserialize)]
    struct Second(u8);
    impl Version for Second {
        const VERSION: u32 = 2;
        type Previous = Plain<u8>;
        fn upcast(old: Plain<u8>) -> Result<Self, CastError> {
            Ok(Second(old.0))
        }
        fn downcast(&self, _: Option<Plain<u8>>) -> Result<Plain<u8>, CastError> {
            Ok(Plain(self.0))
        }
        fn encode(&self, out: &mut Vec<u8>) -> Result<(), CastError> {
            json(self, out)
        }
        fn decode(bytes: &[u8]) -> Result<Self, CastError> {
            of_json(bytes)
        }
    }
    let versions = self::store();
    let _first: Table<u64, Plain<u8>> = versions.table("t").unwrap();
    let second: Table<u64, Second> = versions.table("t").unwrap();
    let error = versions.plan("m").table(&second).begin().unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("give its codec a name of its own"), "{error}");

    #[derive(Serialize, Deserialize)]
    struct Unreadable(u8);
    coded!(Unreadable, "half json", |it: &Unreadable, out: &mut Vec<u8>| {
        out.push(b'{');
        json(it, out)
    });
    let error = store.table::<u64, Unreadable>("unreadable").unwrap_err().to_string();
    assert!(error.contains("`Version::decode` must read whatever `Version::encode` writes"), "{error}");
    assert_eq!(store.tables(), ["json"]);
}

/// What the invented values do not show is refused at the put, if puts are checked; else `verify` names the record.
#[test]
fn records_that_would_not_be_read_back() {
    #[derive(Serialize, Deserialize)]
    enum State {
        A,
        #[serde(skip_deserializing)]
        LastNotRead(u8),
    }
    let open = |checked| {
        let options = Store::options().check_writes(checked);
        let store = options.open_in(Arc::new(MemoryEngine::new())).unwrap();
        let table: Table<u64, Plain<State>> = store.table("t").unwrap();
        table.put(&1, &Plain(State::A)).unwrap();
        (store, table)
    };
    let (store, table) = open(true);
    for result in [
        table.put(&2, &Plain(State::LastNotRead(7))),
        table.insert_if_absent(&2, &Plain(State::LastNotRead(7))).map(drop),
        store.transaction(|t| t.put(&table, &2, &Plain(State::LastNotRead(7)))),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Codec { version: 1, .. }), "{error:?}");
        assert!(error.to_string().contains("would not be read back"), "{error}");
    }
    assert_eq!(table.len().unwrap(), 1);
    assert!(store.verify().unwrap().is_clean());

    let (store, table) = open(false);
    table.put(&2, &Plain(State::LastNotRead(7))).unwrap();
    assert!(table.get(&2).is_err());
    let report = store.verify().unwrap();
    assert_eq!((report.records, report.damage_count), (2, 1));
    for part in ["table t", "key 0x0000000000000002", "version 1", "`State` has no variant 1"] {
        assert!(report.damage[0].contains(part), "{part:?} is not in: {}", report.damage[0]);
    }
}

/// The values that are made for a type are few, however many fields it has, and whatever these refuse.
#[test]
fn opening_a_large_type_makes_few_values() {
    use std::sync::atomic::{AtomicU32, Ordering};

    static MADE: AtomicU32 = AtomicU32::new(0);
    #[derive(Serialize, Clone)]
    struct Counts;
    impl<'de> Deserialize<'de> for Counts {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            MADE.fetch_add(1, Ordering::Relaxed);
            <()>::deserialize(deserializer).map(|()| Counts)
        }
    }
    fn made<T: Record>() -> u32 {
        MADE.store(0, Ordering::Relaxed);
        assert_eq!(refusal::<(Counts, T)>(), None);
        MADE.load(Ordering::Relaxed)
    }
    macro_rules! wide {
        ($name:ident<$inner:ident>: $($field:ident)*) => {
            #[derive(Serialize, Deserialize)]
            struct $name<$inner> { $($field: $inner),* }
        };
    }
    wide!(Wide<T>: a b c d e f g h i j k l m n o p q r s t u v w x y z aa ab ac ad ae af ag ah ai aj ak al am an ao ap);
    type Sixteen<T> = (T, T, T, T, T, T, T, T, T, T, T, T, T, T, T, T);
    // Opened twice each, and each value is made, decoded and read from its sample.
    for (what, count) in [
        ("numbers", made::<Wide<u64>>()),
        ("options", made::<Wide<Option<String>>>()),
        ("nested", made::<Wide<(Option<Vec<u8>>, Option<u8>)>>()),
        ("arrays", made::<[[Option<u8>; 32]; 4]>()),
    ] {
        assert!(count < 100, "{what}: {count} values");
    }
    let refusing = made::<Sixteen<std::num::NonZeroU8>>();
    assert!(refusing < 200, "{refusing} values");
}

/// A type that takes none of the values that are made for it cannot be examined: so each of its records is read back before
/// it is written, by a put and by a backfill.
#[test]
fn types_of_which_no_value_can_be_made_are_checked_at_each_write() {
    use exuvia::{CastError, Version};

    #[derive(Serialize, Deserialize)]
    struct Raw {
        year: u16,
    }
    #[derive(Serialize, Deserialize, Clone, Debug)]
    #[serde(try_from = "Raw", into = "Raw")]
    struct Founded(u16);
    impl TryFrom<Raw> for Founded {
        type Error = String;
        fn try_from(Raw { year }: Raw) -> Result<Self, String> {
            if year > 1900 { Ok(Founded(year)) } else { Err(format!("{year} is too early")) }
        }
    }
    /// Wrong from 2000 on.
    impl From<Founded> for Raw {
        fn from(Founded(year): Founded) -> Self {
            Raw { year: if year < 2000 { year } else { year + 1 } }
        }
    }
    impl Version for Founded {
        const VERSION: u32 = 2;
        type Previous = Plain<u16>;
        fn upcast(year: Plain<u16>) -> Result<Self, CastError> {
            Ok(Founded(year.0))
        }
        fn downcast(&self, _: Option<Plain<u16>>) -> Result<Plain<u16>, CastError> {
            Ok(Plain(self.0))
        }
    }
    let options = Store::options().check_writes(false);
    let store = options.open_in(Arc::new(MemoryEngine::new())).unwrap();
    let table: Table<u64, Plain<Founded>> = store.table("t").unwrap();
    table.put(&1, &Plain(Founded(1999))).unwrap();
    let error = table.put(&2, &Plain(Founded(2001))).unwrap_err();
    assert!(matches!(error, Error::Codec { version: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("would not be read back"), "{error}");
    assert_eq!(table.len().unwrap(), 1);

    let old: Table<u64, Plain<u16>> = store.table("years").unwrap();
    old.put(&1, &Plain(1999)).unwrap();
    old.put(&2, &Plain(2001)).unwrap();
    let new: Table<u64, Founded> = store.table("years").unwrap();
    let migration = store.plan("m").table(&new).begin().unwrap();
    migration.wait().unwrap();
    let quarantined = new.quarantined().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(quarantined.len(), 1);
    assert!(quarantined[0].0 == 2 && quarantined[0].1.contains("would not be read back"), "{quarantined:?}");
    assert!(new.get(&2).is_err());
    assert_eq!((new.get(&1).unwrap().unwrap().0, old.get(&2).unwrap()), (1999, Some(Plain(2001))));
}

#[test]
fn names() {
    #[derive(Serialize, Deserialize)]
    struct Field {
        #[serde(rename(serialize = "out", deserialize = "in"))]
        name: String,
    }
    refused::<Field>(&["the field `out` of `Field` is written and not read", "one name"]);
    #[derive(Serialize, Deserialize)]
    enum Variant {
        #[serde(rename(serialize = "Out", deserialize = "In"))]
        A,
    }
    refused::<Variant>(&["read as `In` is written as `Out`", "one name"]);

    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    #[serde(rename_all = "camelCase", rename(serialize = "Out", deserialize = "In"))]
    struct Symmetric {
        #[serde(rename = "other")]
        first_name: String,
        #[serde(alias = "old_last_name")]
        last_name: u8,
        #[serde(rename(serialize = "out", deserialize = "in"), alias = "out")]
        aliased: bool,
    }
    accepted(&[Symmetric { first_name: "a".into(), last_name: 2, aliased: true }]);
    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    enum SymmetricEnum {
        #[serde(rename = "one", alias = "Uno")]
        A,
        B {
            #[serde(rename = "at")]
            place: u8,
        },
        #[serde(other)]
        Unknown,
    }
    accepted(&[SymmetricEnum::A, SymmetricEnum::B { place: 4 }, SymmetricEnum::Unknown]);
}

#[test]
fn what_is_the_same_on_both_sides_is_accepted() {
    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    #[serde(transparent)]
    struct Transparent {
        #[serde(skip)]
        unseen: u8,
        inner: Option<String>,
    }
    accepted(&[Transparent { unseen: 0, inner: None }, Transparent { unseen: 0, inner: Some("a".into()) }]);

    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    #[serde(default, deny_unknown_fields)]
    struct Defaults {
        #[serde(default = "five")]
        number: u64,
        list: Vec<Option<bool>>,
    }
    fn five() -> u64 {
        5
    }
    impl Default for Defaults {
        fn default() -> Self {
            Defaults { number: 1, list: vec![None] }
        }
    }
    accepted(&[Defaults::default(), Defaults { number: 0, list: vec![] }]);

    mod elsewhere {
        #[derive(Clone, PartialEq, Debug)]
        pub struct Point {
            pub x: i32,
            pub y: i32,
        }
    }
    #[derive(Serialize, Deserialize)]
    #[serde(remote = "elsewhere::Point")]
    struct PointDef {
        x: i32,
        y: i32,
    }
    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    struct Remote {
        #[serde(with = "PointDef")]
        at: elsewhere::Point,
    }
    accepted(&[Remote { at: elsewhere::Point { x: -1, y: 7 } }]);

    type Sets = (BTreeSet<u16>, HashSet<String>, HashMap<u32, Vec<f64>>);
    let many = |n: u32| (0..n).map(|n| (n, vec![f64::from(n), -0.0])).collect::<HashMap<_, _>>();
    let sets: Sets = ([3, 1].into(), ["b".to_owned(), "a".to_owned()].into(), many(40));
    accepted(&[sets]);
    assert_eq!(refusal::<BinaryHeap<u8>>(), None);

    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    struct Unit;
    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    struct Nothing {}
    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    struct Recursive {
        next: Option<Box<Recursive>>,
        children: Vec<Recursive>,
        nothing: (Unit, Nothing, std::marker::PhantomData<u8>, ()),
    }
    let leaf =
        Recursive { next: None, children: vec![], nothing: (Unit, Nothing {}, std::marker::PhantomData, ()) };
    accepted(&[Recursive {
        next: Some(Box::new(leaf.clone())),
        children: vec![leaf.clone(), leaf.clone()],
        ..leaf
    }]);

    use std::num::NonZeroU32;
    use std::time::{Duration, SystemTime};
    type Standard = (
        (NonZeroU32, Duration, SystemTime, std::net::IpAddr, std::net::SocketAddr),
        (char, i128, u128, f32, std::path::PathBuf, Result<u8, String>),
        (std::cmp::Reverse<u8>, std::num::Wrapping<i64>, std::ops::Bound<u8>, std::ops::Range<u8>),
        (std::borrow::Cow<'static, str>, Option<Option<u8>>, Box<str>),
    );
    let standard: Standard = (
        (NonZeroU32::MIN, Duration::MAX, SystemTime::UNIX_EPOCH, [1, 2, 3, 4].into(), ([0; 16], 1).into()),
        ('é', i128::MIN, u128::MAX, -1.5, "a/b".into(), Err("no".into())),
        (std::cmp::Reverse(3), std::num::Wrapping(-3), std::ops::Bound::Excluded(3), 1..4),
        ("cow".into(), Some(None), "boxed".into()),
    );
    accepted(&[standard]);
}

#[test]
fn values_that_a_type_refuses_are_no_reason_to_refuse_the_type() {
    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    #[serde(try_from = "u32", into = "u32")]
    struct Odd(u32);
    impl TryFrom<u32> for Odd {
        type Error = String;
        fn try_from(it: u32) -> Result<Self, String> {
            if it % 2 == 1 { Ok(Odd(it)) } else { Err("even".into()) }
        }
    }
    impl From<Odd> for u32 {
        fn from(it: Odd) -> u32 {
            it.0
        }
    }
    accepted(&[Odd(7)]);

    /// Its reader panics at what it does not like.
    #[derive(Serialize, Clone, PartialEq, Debug)]
    struct Panics(bool);
    impl<'de> Deserialize<'de> for Panics {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let it = bool::deserialize(deserializer)?;
            assert!(!it, "never true");
            Ok(Panics(it))
        }
    }
    accepted(&[Panics(false)]);

    /// Its writer refuses some.
    #[derive(Deserialize, Clone, PartialEq, Debug)]
    struct Shy(u8);
    impl Serialize for Shy {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if self.0 == 1 {
                return Err(serde::ser::Error::custom("not this one"));
            }
            serializer.serialize_newtype_struct("Shy", &self.0)
        }
    }
    accepted(&[Shy(2)]);
}
