//! What every read must give: an oracle beside the store that shares no cast with it.
//!
//! Two observations make it small. First, the three versions of an airport hold the same content in different
//! forms, and beyond it version 2 holds one field of its own (`runways`) and version 3 another (`opened`). So
//! eight bytes for a key say everything: which revision of the content was written last, and the last value of
//! both fields. Second, the rules for writes are then two lines: a writer sets the content and the fields that
//! its version has, **and leaves those that it cannot see**; a removal forgets everything.
//!
//! What a record must look like is compared as text: numbers are checked by multiplying strings of digits as
//! one does on paper, names by their last word. None of the code in `types.rs` and `decimal.rs` is called.

use crate::source::Source;
use crate::types::{Airport, AirportV1, AirportV2, AirportV3, Kind, View};

/// What was last written under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// Twice the revision of the content, plus one while the record exists. It only grows.
    revision: u32,
    /// Zero: none.
    runways: u16,
    /// Zero: none.
    opened: u16,
}

impl State {
    /// The record as it was loaded: at version 1, revision 0.
    pub(crate) const LOADED: Self = Self { revision: 1, runways: 0, opened: 0 };

    /// Whether there is a record.
    pub(crate) fn exists(&self) -> bool {
        self.revision & 1 == 1
    }

    /// The revision of the content.
    pub(crate) fn revision(&self) -> u32 {
        self.revision >> 1
    }

    /// The number of runways, which readers at version 2 and 3 see.
    pub(crate) fn runways(&self) -> Option<u16> {
        (self.runways != 0).then_some(self.runways)
    }

    /// The year of opening, which readers at version 3 see.
    pub(crate) fn opened(&self) -> Option<u16> {
        (self.opened != 0).then_some(self.opened)
    }

    /// After a write at `view` of the next revision of the content. A field that `view` does not have is not
    /// touched, whatever is given for it here.
    pub(crate) fn written(self, view: View, runways: Option<u16>, opened: Option<u16>) -> Self {
        let runways = if view >= View::V2 { runways.unwrap_or(0) } else { self.runways };
        let opened = if view >= View::V3 { opened.unwrap_or(0) } else { self.opened };
        Self { revision: (self.revision | 1).wrapping_add(2), runways, opened }
    }

    /// After a removal at any view: who writes next at an old view finds nothing to keep.
    pub(crate) fn removed(self) -> Self {
        Self { revision: self.revision & !1, runways: 0, opened: 0 }
    }
}

/// The states of all keys that one thread may write: those whose remainder by the number of threads is its own.
#[derive(Debug)]
pub(crate) struct Shard {
    owners: u64,
    states: Vec<State>,
}

impl Shard {
    /// The keys of thread `owner` of `owners`, out of `records`, all loaded.
    pub(crate) fn loaded(owner: u64, owners: u64, records: u64) -> Self {
        let count = (records + owners - 1 - owner) / owners;
        Self { owners, states: vec![State::LOADED; count as usize] }
    }

    /// How many keys this shard has.
    pub(crate) fn keys(&self) -> u64 {
        self.states.len() as u64
    }

    /// What was last written under `key`, one of this shard's.
    pub(crate) fn state(&self, key: u64) -> State {
        self.states.get((key / self.owners) as usize).copied().unwrap_or(State::LOADED.removed())
    }

    /// Notes what is now under `key`.
    pub(crate) fn set(&mut self, key: u64, state: State) {
        if let Some(slot) = self.states.get_mut((key / self.owners) as usize) {
            *slot = state;
        }
    }

    /// How many records exist.
    #[cfg(test)]
    pub(crate) fn existing(&self) -> u64 {
        self.states.iter().filter(|state| state.exists()).count() as u64
    }
}

/// Checks what a read of `key` at `view` gave. The error names the first difference.
pub(crate) fn check(
    source: &Source,
    key: u64,
    state: State,
    view: View,
    found: Option<&Airport>,
) -> Result<(), String> {
    let difference = match (state.exists(), found) {
        (false, None) => return Ok(()),
        (true, None) => "the record is gone".to_owned(),
        (false, Some(_)) => "a removed record is back".to_owned(),
        (true, Some(airport)) if airport.view() != view => format!("the record came at {}", airport.view()),
        (true, Some(airport)) => match record(&source.record(key, state.revision()), state, airport) {
            Ok(()) => return Ok(()),
            Err(difference) => difference,
        },
    };
    Err(format!("key {key} at {view}, revision {}: {difference}", state.revision()))
}

fn record(text: &AirportV1, state: State, found: &Airport) -> Result<(), String> {
    match found {
        Airport::V1(found) if found == text => Ok(()),
        Airport::V1(found) => Err(format!("expected {text:?}, found {found:?}")),
        Airport::V2(found) => v2(text, state, found),
        Airport::V3(found) => v3(text, state, found),
    }
}

fn v2(text: &AirportV1, state: State, found: &AirportV2) -> Result<(), String> {
    same("icao", &text.icao, &found.icao)?;
    same("iata", &text.iata, &found.iata)?;
    same("lid", &text.lid, &found.lid)?;
    same("name", &text.name, &found.name)?;
    same("city", &text.city, &found.city)?;
    same("subd", &text.subd, &found.subd)?;
    same("country", &text.country, &found.country)?;
    let elevation = found.elevation.map(|m| (m.0.units, m.0.decimals));
    numbers(text, elevation, (found.lat.units, found.lat.decimals), (found.lon.units, found.lon.decimals))?;
    same("tz", &text.tz, &found.tz)?;
    same("note", &text.note, &found.note)?;
    same("runways", &state.runways(), &found.runways)
}

fn v3(text: &AirportV1, state: State, found: &AirportV3) -> Result<(), String> {
    same("icao", &text.icao, &found.icao)?;
    same("iata", &text.iata, &found.iata)?;
    same("lid", &text.lid, &found.lid)?;
    let (core, kind) = name_parts(&text.name);
    same("name_core", &core, &found.name_core.as_str())?;
    same("kind", &kind, &found.kind)?;
    same("city", &text.city, &found.place.city)?;
    same("subdivision", &text.subd, &found.place.subdivision)?;
    same("country", &text.country, &found.place.country)?;
    let elevation = found.elevation.map(|m| (m.0.units, m.0.decimals));
    numbers(text, elevation, (found.lat.units, found.lat.decimals), (found.lon.units, found.lon.decimals))?;
    same("tz", &text.tz, &found.tz)?;
    same("note", &text.note, &found.note)?;
    same("runways", &state.runways(), &found.runways)?;
    same("opened", &state.opened(), &found.opened)
}

fn same<T: PartialEq + std::fmt::Debug>(field: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{field}: expected {expected:?}, found {found:?}")) }
}

/// A number as it is stored: its digits as an integer, and how many of them are behind the point.
type Stored = (i128, u8);

fn numbers(text: &AirportV1, elevation: Option<Stored>, lat: Stored, lon: Stored) -> Result<(), String> {
    let coordinate = |field: &str, text: &str, found: Stored| {
        if as_stored(text, "1", 0) == (found.0.to_string(), usize::from(found.1)) {
            Ok(())
        } else {
            Err(format!("{field}: expected {text}, found {}e-{}", found.0, found.1))
        }
    };
    coordinate("lat", &text.lat, lat)?;
    coordinate("lon", &text.lon, lon)?;
    let found = elevation.map(|(units, decimals)| (units.to_string(), usize::from(decimals)));
    // 0.3048 metres to a foot: times 3048, and four more digits behind the point.
    let expected = (!text.elevation_ft.is_empty()).then(|| as_stored(&text.elevation_ft, "3048", 4));
    same("elevation", &expected, &found)
}

/// The digits, with a sign and without zeros in front, of the number that `text` states times `factor`, and how
/// many of them are behind the point if that is moved `shift` places to the left.
fn as_stored(text: &str, factor: &str, shift: usize) -> (String, usize) {
    let behind = text.bytes().rev().position(|b| b == b'.').unwrap_or(0);
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).map(|b| b - b'0').collect();
    let factor: Vec<u8> = factor.bytes().map(|b| b - b'0').collect();
    // Column by column, from the last: the product has at most as many digits as both numbers together.
    let mut product = String::new();
    let mut carry = 0u32;
    for column in 0..digits.len() + factor.len() {
        for (i, a) in factor.iter().rev().enumerate() {
            let b = column.checked_sub(i).and_then(|j| digits.iter().rev().nth(j)).copied().unwrap_or(0);
            carry += u32::from(*a) * u32::from(b);
        }
        product.insert(0, char::from(b'0' + (carry % 10) as u8));
        carry /= 10;
    }
    let product = product.trim_start_matches('0');
    let product = if product.is_empty() { "0" } else { product };
    let sign = if text.starts_with('-') { "-" } else { "" };
    (format!("{sign}{product}"), behind + shift)
}

/// A name in parts, by its last word or two.
fn name_parts(name: &str) -> (&str, Kind) {
    let mut words = name.rsplitn(3, ' ');
    let (last, before, rest) = (words.next().unwrap_or_default(), words.next(), words.next());
    let Some(before) = before else {
        return (name, Kind::Other);
    };
    let kind = match last {
        "Base" => match (before, rest) {
            ("Air", Some(core)) => return (core, Kind::AirBase),
            ("Seaplane", Some(core)) => return (core, Kind::SeaplaneBase),
            _ => return (name, Kind::Other),
        },
        "Aerodrome" => Kind::Aerodrome,
        "Airfield" => Kind::Airfield,
        "Airpark" => Kind::Airpark,
        "Airport" => Kind::Airport,
        "Airstrip" => Kind::Airstrip,
        "Field" => Kind::Field,
        "Heliport" => Kind::Heliport,
        "Strip" => Kind::Strip,
        _ => return (name, Kind::Other),
    };
    (name.get(..name.len() - last.len() - 1).unwrap_or_default(), kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_leaves_what_it_cannot_see_and_a_removal_forgets_it() {
        let s = State::LOADED;
        assert_eq!((s.exists(), s.revision(), s.runways(), s.opened()), (true, 0, None, None));
        let s = s.written(View::V3, Some(2), Some(1950));
        let s = s.written(View::V2, Some(3), None);
        assert_eq!((s.revision(), s.runways(), s.opened()), (2, Some(3), Some(1950)));
        let s = s.written(View::V1, None, None);
        assert_eq!((s.revision(), s.runways(), s.opened()), (3, Some(3), Some(1950)));
        let s = s.written(View::V3, None, None);
        assert_eq!((s.revision(), s.runways(), s.opened()), (4, None, None));
        let s = s.written(View::V2, Some(9), None).removed();
        assert_eq!((s.exists(), s.runways()), (false, None));
        let s = s.written(View::V1, None, None);
        assert_eq!(
            (s.exists(), s.revision(), s.runways()),
            (true, 6, None),
            "revisions are never used again"
        );
    }

    #[test]
    fn digits_multiply_as_on_paper() {
        assert_eq!(as_stored("100", "3048", 4), ("304800".to_owned(), 4));
        assert_eq!(as_stored("-0.25", "3048", 4), ("-76200".to_owned(), 6));
        assert_eq!(as_stored("999.99", "3048", 4), ("304796952".to_owned(), 6));
        assert_eq!(as_stored("0.0", "1", 0), ("0".to_owned(), 1));
        assert_eq!(as_stored("-101.473911", "1", 0), ("-101473911".to_owned(), 6));
    }

    #[test]
    fn names_have_parts_by_their_last_words() {
        assert_eq!(name_parts("Lowell Field"), ("Lowell", Kind::Field));
        assert_eq!(name_parts("Brumowski  Air Base"), ("Brumowski ", Kind::AirBase));
        assert_eq!(name_parts("Army Base"), ("Army Base", Kind::Other));
        assert_eq!(name_parts("Airport"), ("Airport", Kind::Other));
        assert_eq!(name_parts(" Airport"), ("", Kind::Airport));
        assert_eq!(name_parts("X Airport "), ("X Airport ", Kind::Other));
    }

    #[test]
    fn shards_divide_the_keys() {
        let shards: Vec<_> = (0..3).map(|owner| Shard::loaded(owner, 3, 10)).collect();
        assert_eq!(shards.iter().map(Shard::keys).collect::<Vec<_>>(), [4, 3, 3]);
        let [mut first, ..] = <[Shard; 3]>::try_from(shards).expect("three");
        first.set(9, State::LOADED.removed());
        assert!(!first.state(9).exists() && first.state(6).exists());
        assert_eq!(first.existing(), 3);
    }
}
