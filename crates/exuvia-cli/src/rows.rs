//! The airports as text, packed into one string: a `String` per field would take several times the memory.

use crate::types::AirportV1;

/// How many fields a row has.
pub(crate) const FIELDS: usize = 12;

/// The names of the fields as a file spells them, in the order of a row.
pub(crate) const NAMES: [&str; FIELDS] =
    ["icao", "iata", "lid", "name", "city", "subd", "country", "elevation", "lat", "lon", "tz", "note"];

/// Where a field is in a row, by a name that a file may use.
pub(crate) fn field_index(name: &str) -> Option<usize> {
    let name = if name == "elevation_ft" { "elevation" } else { name };
    NAMES.iter().position(|known| *known == name)
}

/// Rows of text.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    text: String,
    ends: Vec<[u32; FIELDS]>,
}

impl Rows {
    /// Appends a row. `false` if all rows together hold more text than can be kept (4 GiB).
    #[must_use]
    pub(crate) fn push(&mut self, fields: &[String; FIELDS]) -> bool {
        let mut ends = [0; FIELDS];
        let mut length = self.text.len();
        for (end, field) in ends.iter_mut().zip(fields) {
            length += field.len();
            match u32::try_from(length) {
                Ok(length) => *end = length,
                Err(_) => return false,
            }
        }
        fields.iter().for_each(|field| self.text.push_str(field));
        self.ends.push(ends);
        true
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The row at `index`, or an empty record if there is none.
    pub(crate) fn airport(&self, index: usize) -> AirportV1 {
        let Some(ends) = self.ends.get(index) else {
            return AirportV1::default();
        };
        let before = index.checked_sub(1).and_then(|i| self.ends.get(i));
        let mut start = before.map_or(0, |ends| ends[FIELDS - 1] as usize);
        let mut fields = ends.iter().map(|end| {
            let field = self.text.get(start..*end as usize).unwrap_or_default();
            start = *end as usize;
            field.to_owned()
        });
        let mut next = || fields.next().unwrap_or_default();
        AirportV1 {
            icao: next(),
            iata: next(),
            lid: next(),
            name: next(),
            city: next(),
            subd: next(),
            country: next(),
            elevation_ft: next(),
            lat: next(),
            lon: next(),
            tz: next(),
            note: next(),
        }
    }

    /// The code of the row at `index`: the field that no writer of the demo ever changes.
    pub(crate) fn icao(&self, index: usize) -> &str {
        let before = index.checked_sub(1).and_then(|i| self.ends.get(i));
        let start = before.map_or(0, |ends| ends[FIELDS - 1] as usize);
        let end = self.ends.get(index).map_or(0, |ends| ends[0] as usize);
        self.text.get(start..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_as_it_went_in() {
        let mut rows = Rows::default();
        let row =
            |n: usize| std::array::from_fn(|i| if i == 1 { String::new() } else { format!("é{n}/{i}") });
        for n in 0..3 {
            assert!(rows.push(&row(n)));
        }
        let airport = rows.airport(1);
        assert_eq!((airport.icao.as_str(), airport.iata.as_str()), ("é1/0", ""));
        assert_eq!((airport.elevation_ft.as_str(), airport.note.as_str()), ("é1/7", "é1/11"));
        assert_eq!(rows.icao(2), "é2/0");
        assert_eq!(rows.airport(3), AirportV1::default());
        assert_eq!(rows.icao(3), "");
    }
}
