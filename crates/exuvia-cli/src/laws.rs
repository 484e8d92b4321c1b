//! The lineage against the laws of `Version`, and the model against the lineage, on every record of the set.

use exuvia::{CastError, Version};

use crate::data::embedded;
use crate::decimal::{Decimal, Metres};
use crate::model::{State, check};
use crate::source::Source;
use crate::types::{Airport, AirportV1, AirportV2, AirportV3, Kind, View};

fn bytes<T: Version>(record: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes).expect("encoded");
    bytes
}

/// Checks all four laws for three records of the previous version and one of this.
fn obeys<T: Version<Previous = P> + Clone, P: Version + Clone>(f: &P, g: &P, t: &T) {
    let merge = |f: &P, t: T| T::merge(f.clone(), t).expect("merged").expect("a merge of its own");
    let up = T::upcast(f.clone()).expect("upcast");
    assert_eq!(bytes(&up.downcast(Some(f.clone())).expect("downcast")), bytes(f), "law 1");
    assert_eq!(bytes(&merge(&t.downcast(None).expect("downcast"), t.clone())), bytes(t), "law 2");
    let merged = merge(f, t.clone());
    assert_eq!(bytes(&merged.downcast(Some(f.clone())).expect("downcast")), bytes(f), "law 3");
    assert_eq!(bytes(&merge(f, merge(g, t.clone()))), bytes(&merged), "law 4");
    assert_eq!(bytes(&T::decode(&bytes(t)).expect("decoded")), bytes(t));
}

#[test]
fn the_four_laws_hold_on_every_record() {
    let source = Source::new(embedded(usize::MAX).expect("embedded"), None, 150, 1);
    for key in 0..source.records() {
        let (f, g) = (source.record(key, 0), source.record(key, 1));
        let other = source.record((key * 7 + 1) % source.records(), 2);
        let mut t = AirportV2::upcast(other).expect("upcast");
        t.runways = Some(key as u16);
        obeys(&f, &g, &t);

        let (mut f, g) = (AirportV2::upcast(f).expect("upcast"), AirportV2::upcast(g).expect("upcast"));
        f.runways = Some(3);
        let mut t = AirportV3::upcast(t).expect("upcast");
        t.opened = Some(1950);
        obeys(&f, &g, &t);
    }
}

#[test]
fn the_model_agrees_with_the_lineage_on_every_record() {
    let source = Source::new(embedded(usize::MAX).expect("embedded"), Some(40_000), 150, 5);
    for key in 0..source.records() {
        let mut state = State::LOADED;
        for _ in 0..key % 3 {
            state = state.written(View::V3, Some(2), Some(1999));
        }
        let v1 = source.record(key, state.revision());
        let mut v2 = AirportV2::upcast(v1.clone()).expect("upcast");
        v2.runways = state.runways();
        let mut v3 = AirportV3::upcast(v2.clone()).expect("upcast");
        v3.opened = state.opened();
        for airport in [Airport::V1(v1), Airport::V2(v2), Airport::V3(v3)] {
            assert_eq!(check(&source, key, state, airport.view(), Some(&airport)), Ok(()));
        }
    }
}

#[test]
fn the_model_sees_every_changed_field() {
    let source = Source::new(embedded(10).expect("embedded"), None, 150, 5);
    let state = State::LOADED.written(View::V3, Some(2), Some(1999));
    let mut v2 = AirportV2::upcast(source.record(4, 1)).expect("upcast");
    v2.runways = Some(2);
    let mut v3 = AirportV3::upcast(v2.clone()).expect("upcast");
    v3.opened = Some(1999);
    let seen = |airport| check(&source, 4, state, View::V3, Some(&Airport::V3(airport)));
    assert_eq!(seen(v3.clone()), Ok(()));

    let changes: [fn(&mut AirportV3); 15] = [
        |a| a.icao.push('x'),
        |a| a.iata.push('x'),
        |a| a.lid.push('x'),
        |a| a.name_core.push('x'),
        |a| a.kind = Kind::Heliport,
        |a| a.place.city.push('x'),
        |a| a.place.subdivision.push('x'),
        |a| a.place.country.push('x'),
        |a| a.elevation = None,
        |a| a.lat.units += 1,
        |a| a.lon.decimals += 1,
        |a| a.tz.push('x'),
        |a| a.note.push('x'),
        |a| a.runways = None,
        |a| a.opened = Some(2000),
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut changed = v3.clone();
        change(&mut changed);
        assert!(seen(changed).is_err(), "change {n} was not seen");
    }
    v3.elevation =
        v3.elevation.map(|Metres(d)| Metres(Decimal { units: d.units * 10, decimals: d.decimals + 1 }));
    assert!(seen(v3).is_err(), "the same height with another number of decimals is another text");

    let v1 = Airport::V1(AirportV1 { lat: "0".into(), ..source.record(4, 1) });
    assert!(check(&source, 4, state, View::V1, Some(&v1)).is_err());
    v2.name.push('x');
    let v2 = Airport::V2(v2);
    assert!(check(&source, 4, state, View::V2, Some(&v2)).is_err());
    assert!(check(&source, 4, state, View::V1, Some(&v2)).is_err(), "a record at another view");
    assert!(check(&source, 4, state, View::V2, None).is_err());
    assert!(check(&source, 4, state.removed(), View::V2, Some(&v2)).is_err());
    assert_eq!(check(&source, 4, state.removed(), View::V2, None), Ok(()));
}

#[test]
fn upcast_refuses_text_that_is_no_coordinate() {
    let airport = |lat: &str, lon: &str, elevation: &str| AirportV1 {
        lat: lat.into(),
        lon: lon.into(),
        elevation_ft: elevation.into(),
        ..AirportV1::default()
    };
    assert!(AirportV2::upcast(airport("1.5", "-180", "")).is_ok_and(|v2| v2.elevation.is_none()));
    for (lat, lon, elevation) in
        [("38° N", "1", "2"), ("", "1", "2"), ("90.1", "1", "2"), ("1", "-181", "2"), ("1", "2", "1,200")]
    {
        let refused: Result<_, CastError> = AirportV2::upcast(airport(lat, lon, elevation));
        assert!(refused.is_err(), "{lat} {lon} {elevation}");
    }
}

#[test]
fn downcast_refuses_what_an_old_reader_could_not_give_back() {
    let v2 = AirportV2::upcast(AirportV1 { lat: "1".into(), lon: "2".into(), ..AirportV1::default() });
    let v2 = v2.expect("upcast");
    let metre = Some(Metres(Decimal { units: 1, decimals: 0 }));
    assert!(AirportV2 { elevation: metre, ..v2.clone() }.downcast(None).is_err());
    let v3 = AirportV3::upcast(v2).expect("upcast");
    let named = |core: &str, kind| AirportV3 { name_core: core.into(), kind, ..v3.clone() };
    assert!(named("Lowell Field", Kind::Other).downcast(None).is_err());
    assert!(named("Lowell Field", Kind::Airport).downcast(None).is_ok());
    assert!(AirportV3 { lat: Decimal { units: 91, decimals: 0 }, ..v3.clone() }.validate().is_err());
}
