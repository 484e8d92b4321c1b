//! One broken version for each law.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Old(i32);

#[derive(Serialize, Deserialize)]
struct Map(HashMap<u32, u32>);

macro_rules! first {
    ($($ty:ident)*) => {$(
        impl Version for $ty {
            const VERSION: u32 = 1;
            type Previous = Origin;
            fn upcast(previous: Origin) -> Result<Self, CastError> {
                previous.never()
            }
            fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
                Origin::nothing_below()
            }
        }
    )*};
}
first!(Old Map);

/// A version 2 with the number of version 1 and a note of its own.
macro_rules! second {
    ($ty:ident, $drops:literal, $up:expr, $down:expr, $merge:expr) => {
        #[derive(Serialize, Deserialize, Clone)]
        struct $ty {
            number: i32,
            note: u8,
        }
        impl Version for $ty {
            const VERSION: u32 = 2;
            type Previous = Old;
            const DROPS_FIELDS: bool = $drops;
            fn upcast(previous: Old) -> Result<Self, CastError> {
                let up: fn(i32) -> Result<i32, CastError> = $up;
                Ok(Self { number: up(previous.0)?, note: 0 })
            }
            fn downcast(&self, last: Option<Old>) -> Result<Old, CastError> {
                let down: fn(i32, Option<Old>) -> i32 = $down;
                Ok(Old(down(self.number, last)))
            }
            fn merge(previous: Old, last: Self) -> Result<Option<Self>, CastError> {
                let merge: fn(i32, Self) -> Option<(i32, u8)> = $merge;
                Ok(merge(previous.0, last).map(|(number, note)| Self { number, note }))
            }
        }
    };
}
second!(Good, false, Ok, |n, _| n, |f, t| Some((f, t.note)));
second!(Default, false, Ok, |n, _| n, |_, _| None);
second!(Halves, false, |f| Ok(f / 2), |n, _| n * 2, |_, _| None);
second!(
    Remembers,
    true,
    |f| Ok(f / 2),
    |n, last| if let Some(last) = last
        && last.0 / 2 == n
    {
        last.0
    } else {
        n * 2
    },
    |_, _| None
);
second!(Forgets, false, Ok, |n, _| n, |f, _| Some((f, 0)));
second!(Ignores, false, Ok, |n, _| n, |_, t| Some((t.number, t.note)));
second!(Counts, false, Ok, |n, _| n, |f, t| Some((f, t.note + u8::from(f != t.number))));
// Its own rule for all but one record, for which it leaves it to the default.
second!(Sometimes, false, Ok, |n, _| n, |f, t| (f != 7).then_some((f, t.note)));
second!(Refuses, false, |_| Err(CastError::new("no")), |n, _| n, |_, _| { None });

fn broken<V: Version<Previous = Old>>(current: &[V]) -> LawBroken {
    check(&[Old(4), Old(7)], current).unwrap_err()
}

#[test]
fn good_casts_pass() {
    let previous = [Old(4), Old(7), Old(-1)];
    check(&previous, &[Good { number: 7, note: 9 }, Good { number: 0, note: 0 }]).unwrap();
    check(&previous, &[Default { number: 7, note: 9 }, Default { number: 1, note: 1 }]).unwrap();
    check(&previous, &[Remembers { number: 3, note: 9 }]).unwrap();
    // The fourth law is not asked for where the default had a part in it.
    check(&previous, &[Sometimes { number: 4, note: 5 }]).unwrap();
    check::<Old>(&[], &previous).unwrap();
}

#[test]
fn law_1_names_the_record_and_the_bytes() {
    let found = broken(&[Halves { number: 1, note: 0 }]);
    assert_eq!(
        (found.law, found.version, found.previous, found.current),
        (Law::UpcastKeeps, 2, Some(1), None)
    );
    assert_eq!(found.reason, LawReason::Differs { expected: vec![14], found: vec![12] });
    let text = found.to_string();
    assert!(
        text.contains("downcast(upcast(f), f) = f does not hold, f = previous[1]: expected the bytes 0e"),
        "{text}"
    );
}

#[test]
fn each_other_law_is_told_apart() {
    let found = broken(&[Forgets { number: 4, note: 5 }]);
    assert_eq!((found.law, found.current), (Law::MergeOfNothing, Some(0)));
    let found = broken(&[Ignores { number: 4, note: 5 }]);
    assert_eq!((found.law, found.previous), (Law::MergeTakesPrevious, Some(1)));
    let found = broken(&[Counts { number: 4, note: 5 }]);
    let places = (found.previous, found.second_previous, found.current);
    assert_eq!((found.law, places), (Law::MergeOfMerges, (Some(0), Some(1), Some(0))));
}

#[test]
fn a_refusal_is_reported_as_such() {
    let found = broken(&[Refuses { number: 4, note: 5 }]);
    assert!(matches!(found.reason, LawReason::Cast(Cast::Upcast, _)), "{found}");
}

#[test]
fn a_random_order_is_found() {
    let map = || Map((0..50).map(|i| (i, i)).collect());
    let found = check::<Map>(&[], &[map(), map()]).unwrap_err();
    assert_eq!((found.law, found.version, found.previous, found.current), (Law::Codec, 1, None, Some(0)));
    assert!(found.to_string().contains("BTreeMap"), "{found}");
    // Among the records of the version before, too.
    let found = check::<Counted>(&[Map(HashMap::new()), map()], &[]).unwrap_err();
    assert_eq!((found.law, found.version, found.previous, found.current), (Law::Codec, 1, Some(1), None));
}

/// How many a map has, as its next version.
#[derive(Serialize, Deserialize)]
struct Counted(u32);

impl Version for Counted {
    const VERSION: u32 = 2;
    type Previous = Map;

    fn upcast(previous: Map) -> Result<Self, CastError> {
        Ok(Counted(previous.0.len() as u32))
    }

    fn downcast(&self, _: Option<Map>) -> Result<Map, CastError> {
        Ok(Map((0..self.0).map(|n| (n, n)).collect()))
    }
}

/// A version with an encoding of its own: the number alone, in one byte.
struct Own<const NAMED: bool>(u8);

impl<const NAMED: bool> Serialize for Own<NAMED> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.0, "by bincode it is more").serialize(serializer)
    }
}

impl<'de, const NAMED: bool> Deserialize<'de> for Own<NAMED> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <(u8, String)>::deserialize(deserializer).map(|(number, _)| Own(number))
    }
}

impl<const NAMED: bool> Version for Own<NAMED> {
    const VERSION: u32 = 1;
    type Previous = Origin;
    const CODEC: &'static str = if NAMED { "a byte" } else { codec::BINCODE };

    fn upcast(previous: Origin) -> Result<Self, CastError> {
        previous.never()
    }

    fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CastError> {
        out.push(self.0);
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, CastError> {
        bytes.first().map(|byte| Own(*byte)).ok_or_else(|| CastError::new("no byte"))
    }
}

#[test]
fn an_encoding_of_its_own_has_a_name() {
    check::<Own<true>>(&[], &[Own(1), Own(200)]).unwrap();
    let found = check::<Own<false>>(&[], &[Own(1)]).unwrap_err();
    assert_eq!((found.law, found.current), (Law::CodecName, Some(0)));
    let text = found.to_string();
    assert!(
        text.contains("an encode of its own has a CODEC of its own does not hold, t = current[0]"),
        "{text}"
    );
    assert!(!text.contains("BTreeMap"), "{text}");
}
