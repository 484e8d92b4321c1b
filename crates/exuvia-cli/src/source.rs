//! Any number of distinct records from the rows that were read, and any number of revisions of each.
//!
//! A record is a pure function of (seed, key, revision), so that a run can be repeated and the model needs no
//! copy of it. The first records are the real rows as they are; further ones are rows whose name, position and
//! height vary. Only text is handled here, and nothing is cast.

use exuvia::{CastError, Version};
use exuvia_bench::Random;

use crate::rows::Rows;
use crate::types::AirportV1;

/// Endings that a writer may give a name. "Terminal" is none of the kinds that version 3 knows.
const WORDS: [&str; 6] = ["Airport", "Field", "Seaplane Base", "Terminal", "Airstrip", "Air Base"];

fn digit(random: &mut Random) -> char {
    char::from(b'0' + random.below(10) as u8)
}

/// The records of a run.
#[derive(Debug)]
pub(crate) struct Source {
    rows: Rows,
    records: u64,
    record_bytes: usize,
    seed: u64,
}

impl Source {
    /// `records` records (all rows, if not given) with an encoded size of `record_bytes`, or their own size if
    /// that is larger.
    pub(crate) fn new(rows: Rows, records: Option<u64>, record_bytes: usize, seed: u64) -> Self {
        let records = records.unwrap_or(rows.len() as u64);
        Self { rows, records, record_bytes, seed }
    }

    /// How many records there are; their keys are the numbers below this.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// The seed from which everything varied in this run is made.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The code that every record under `key` has, whatever was written to it.
    pub(crate) fn icao(&self, key: u64) -> &str {
        self.rows.icao(self.row(key))
    }

    /// What is under `key` after it was written `revision` times; revision 0 is what is loaded.
    pub(crate) fn record(&self, key: u64, revision: u32) -> AirportV1 {
        let copy = key / (self.rows.len() as u64).max(1);
        let mut record = self.rows.airport(self.row(key));
        let mut random = Random::new(self.seed, key, u64::from(revision));
        if copy > 0 || revision > 0 {
            record.lat = vary_fraction(&record.lat, 90, &mut random);
            record.lon = vary_fraction(&record.lon, 180, &mut random);
            record.elevation_ft = vary_whole(&record.elevation_ft, &mut random);
            record.name = vary_name(&record.name, copy, revision, &mut random);
        }
        pad(&mut record, self.record_bytes, &mut random);
        record
    }

    /// The mean encoded size of the records that are loaded, from the first thousand.
    pub(crate) fn encoded_bytes_mean(&self) -> Result<f64, CastError> {
        let measured = self.records.min(1000);
        let mut bytes = Vec::new();
        for key in 0..measured {
            self.record(key, 0).encode(&mut bytes)?;
        }
        Ok(bytes.len() as f64 / measured.max(1) as f64)
    }

    fn row(&self, key: u64) -> usize {
        (key % (self.rows.len() as u64).max(1)) as usize
    }
}

/// "Lowell Field" of the fourth copy is "Lowell 4 Field"; a writer sometimes changes the ending.
fn vary_name(name: &str, copy: u64, revision: u32, random: &mut Random) -> String {
    let (core, ending) = name.rsplit_once(' ').unwrap_or((name, "Airport"));
    let ending = match WORDS.get(random.below(4 * WORDS.len() as u64) as usize) {
        Some(word) if revision > 0 => word,
        _ => ending,
    };
    if copy > 0 { format!("{core} {} {ending}", copy + 1) } else { format!("{core} {ending}") }
}

/// Other digits behind the point of a coordinate. At the end of the range there are none to vary.
fn vary_fraction(text: &str, limit: u32, random: &mut Random) -> String {
    let Some((whole, fraction)) = text.split_once('.') else {
        return text.to_owned();
    };
    if whole.trim_start_matches('-').parse::<u32>().is_ok_and(|degrees| degrees >= limit) {
        return text.to_owned();
    }
    let mut fraction: String = fraction.chars().map(|_| digit(random)).collect();
    if whole == "-0" && fraction.chars().all(|c| c == '0') {
        fraction.pop();
        fraction.push('1');
    }
    format!("{whole}.{fraction}")
}

/// Another last digit before the point of a height.
fn vary_whole(text: &str, random: &mut Random) -> String {
    let end = text.find('.').unwrap_or(text.len());
    let (Some((start, _)), digit) = (text.get(..end).and_then(|s| s.char_indices().last()), digit(random))
    else {
        return text.to_owned();
    };
    let (before, after) = (text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default());
    let digit = if before == "-" && digit == '0' { '1' } else { digit };
    format!("{before}{digit}{after}")
}

/// Lengthens the note until the record has the wanted encoded size: a text is its bytes after their number,
/// which takes one byte up to 250 and three beyond.
fn pad(record: &mut AirportV1, record_bytes: usize, random: &mut Random) {
    let texts = [
        &record.icao,
        &record.iata,
        &record.lid,
        &record.name,
        &record.city,
        &record.subd,
        &record.country,
        &record.elevation_ft,
        &record.lat,
        &record.lon,
        &record.tz,
    ];
    let others: usize = texts.iter().map(|text| text.len() + prefix_bytes(text.len())).sum();
    let room = record_bytes.saturating_sub(others);
    let note = room.saturating_sub(prefix_bytes(room));
    record.note.reserve(note.saturating_sub(record.note.len()));
    while record.note.len() < note {
        let mut word = random.next_u64();
        for _ in 0..(note - record.note.len()).min(12) {
            record.note.push(char::from(b'a' + (word % 26) as u8));
            word /= 26;
        }
    }
}

fn prefix_bytes(length: usize) -> usize {
    match length {
        0..=250 => 1,
        251..=0xffff => 3,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::data::embedded;
    use crate::types::AirportV2;

    fn source(records: u64, record_bytes: usize, seed: u64) -> Source {
        Source::new(embedded(usize::MAX).expect("embedded"), Some(records), record_bytes, seed)
    }

    #[test]
    fn the_first_records_are_the_real_ones() {
        let source = source(100, 0, 7);
        let real = embedded(100).expect("embedded");
        for key in 0..100 {
            assert_eq!(source.record(key, 0), real.airport(key as usize));
        }
    }

    #[test]
    fn records_are_distinct_and_repeatable() {
        let (source, same, other) = (source(90_000, 150, 1), source(90_000, 150, 1), source(90_000, 150, 2));
        let mut seen = HashSet::new();
        for key in 0..source.records() {
            let mut record = source.record(key, 0);
            assert_eq!(record, same.record(key, 0));
            if key >= 28_298 {
                assert_ne!(record, other.record(key, 0));
            }
            record.note.clear();
            assert!(seen.insert(format!("{record:?}")), "key {key} is not distinct: {record:?}");
        }
    }

    #[test]
    fn every_record_and_revision_can_be_cast() {
        let source = source(60_000, 150, 3);
        for key in 0..source.records() {
            for revision in [0, 1, 77] {
                let record = source.record(key, revision);
                assert_eq!(record.icao, source.icao(key));
                let back = AirportV2::upcast(record.clone()).and_then(|v2| v2.downcast(None));
                assert_eq!(back, Ok(record));
            }
        }
    }

    #[test]
    fn records_have_the_wanted_encoded_size() {
        for record_bytes in [150, 251, 1000, 70_000] {
            let source = source(1000, record_bytes, 3);
            for key in (0..1000).step_by(7) {
                let mut bytes = Vec::new();
                source.record(key, 1).encode(&mut bytes).expect("encoded");
                let natural = source.record(key, 1).note.is_empty();
                assert!(
                    natural || bytes.len().abs_diff(record_bytes) <= 2,
                    "{} of {record_bytes}",
                    bytes.len()
                );
            }
        }
    }

    #[test]
    fn a_varied_number_stays_a_plain_number() {
        for n in 0..1000 {
            let mut random = Random::new(n, 0, 0);
            for text in ["0", "-1", "12.5", "-0.5", "-1266", ""] {
                let varied = vary_whole(text, &mut random);
                assert!(text.is_empty() || crate::decimal::Decimal::parse(&varied).is_ok(), "{varied}");
            }
            let varied = vary_fraction("-0.1", 90, &mut random);
            assert!(crate::decimal::Decimal::parse(&varied).is_ok(), "{varied}");
            assert_eq!(vary_fraction("-90.000", 90, &mut random), "-90.000");
        }
    }
}
