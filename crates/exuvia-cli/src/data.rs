//! Reading airports: the embedded set, or a file of JSON lines or CSV with the same fields.
//!
//! What is wrong in a file is said with its line number, before anything is stored.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

use crate::failure::Failure;
use crate::rows::{FIELDS, NAMES, Rows, field_index};
use crate::types::{degrees, height};

/// The set that comes with the command; `data/README.md` states where it is from.
const EMBEDDED: &[u8] = include_bytes!("../data/airports.csv.gz");

/// Longest line of a JSON-lines file, and most text in one record.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// Fields of a row that have to be there.
const REQUIRED: [&str; 3] = ["name", "lat", "lon"];

/// Reads the embedded set: at most `limit` rows.
pub(crate) fn embedded(limit: usize) -> Result<Rows, Failure> {
    read(Path::new("embedded airports"), Box::new(Cursor::new(EMBEDDED)), limit)
}

/// Reads `path`: at most `limit` rows. Whether it is compressed (gzip), and whether it holds JSON lines or CSV,
/// is seen from its first bytes.
pub(crate) fn file(path: &Path, limit: usize) -> Result<Rows, Failure> {
    let file = File::open(path).map_err(|e| Failure::input(path, format!("cannot be opened: {e}")))?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(Failure::input(path, "is a directory; name a file of JSON lines or CSV"));
    }
    read(path, Box::new(BufReader::new(file)), limit)
}

type Input<'a> = Box<dyn BufRead + 'a>;

fn read(path: &Path, mut input: Input<'_>, limit: usize) -> Result<Rows, Failure> {
    if first_bytes(path, &mut input)?.starts_with(&[0x1f, 0x8b]) {
        input = Box::new(BufReader::new(MultiGzDecoder::new(input)));
    }
    let start = first_bytes(path, &mut input)?;
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let rows = match start.iter().find(|b| !b.is_ascii_whitespace()) {
        None => Rows::default(),
        Some(b'[') => {
            let reason = "is a JSON array; write one JSON object on each line, without brackets and commas";
            return Err(Failure::line(path, 1, reason));
        }
        Some(b'{') => json_lines(path, input, limit)?,
        Some(_) => csv_rows(path, input, limit)?,
    };
    if rows.len() == 0 {
        return Err(Failure::input(path, "holds no records; give a file with at least one airport"));
    }
    Ok(rows)
}

fn first_bytes<'a>(path: &Path, input: &'a mut Input<'_>) -> Result<&'a [u8], Failure> {
    input.fill_buf().map_err(|e| Failure::input(path, format!("cannot be read: {e}")))
}

fn json_lines(path: &Path, mut input: Input<'_>, limit: usize) -> Result<Rows, Failure> {
    let mut rows = Rows::default();
    let mut line = Vec::new();
    let mut number = 0;
    while rows.len() < limit {
        number += 1;
        line.clear();
        let read = (&mut input).take(RECORD_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
        match read {
            Err(e) => return Err(Failure::line(path, number, format!("cannot be read: {e}"))),
            Ok(0) => break,
            Ok(n) if n > RECORD_BYTES_MAX => {
                return Err(Failure::line(path, number, format!("is longer than {RECORD_BYTES_MAX} bytes")));
            }
            Ok(_) => {}
        }
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let parsed = exuvia::json::parse(line)
            .map_err(|e| Failure::line(path, number, format!("is not a JSON object: {e}")))?;
        let Value::Object(object) = parsed else {
            return Err(Failure::line(path, number, "is not a JSON object".to_owned()));
        };
        let mut fields: [Option<String>; FIELDS] = Default::default();
        for (name, value) in object {
            let index = field_index(&name).ok_or_else(|| unknown(path, number, &name))?;
            let text =
                json_text(index, value).map_err(|e| Failure::line(path, number, format!("{name}: {e}")))?;
            if let Some(field) = fields.get_mut(index)
                && field.replace(text).is_some()
            {
                return Err(Failure::line(path, number, format!("the field {name:?} is there twice")));
            }
        }
        push(path, number, &mut rows, fields)?;
    }
    Ok(rows)
}

/// The text of a field; the three that are numbers may be written as numbers.
fn json_text(index: usize, value: Value) -> Result<String, String> {
    let numeric = matches!(NAMES.get(index), Some(&("elevation" | "lat" | "lon")));
    match value {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        Value::Number(number) if numeric => Ok(match number.as_f64() {
            // Rust writes a float in full, without an exponent; a minus zero is a zero.
            Some(float) if number.is_f64() => (if float == 0.0 { 0.0 } else { float }).to_string(),
            _ => number.to_string(),
        }),
        other if numeric => Err(format!("{other} is neither a number nor text that holds one")),
        other => Err(format!("{other} is not text")),
    }
}

fn csv_rows(path: &Path, input: Input<'_>, limit: usize) -> Result<Rows, Failure> {
    let mut reader = csv::ReaderBuilder::new().from_reader(input);
    let explain = |e: csv::Error| {
        let line = e.position().map(csv::Position::line);
        Failure::Input { path: path.to_path_buf(), line, reason: csv_reason(&e) }
    };
    let header = reader.headers().map_err(explain)?.clone();
    let columns = header.iter().map(|name| field_index(name).ok_or_else(|| unknown(path, 1, name)));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    for (n, column) in columns.iter().enumerate() {
        if columns.iter().take(n).any(|earlier| earlier == column) {
            let name = header.get(n).unwrap_or_default();
            return Err(Failure::line(path, 1, format!("the column {name:?} is there twice")));
        }
    }
    let mut rows = Rows::default();
    let mut record = csv::StringRecord::new();
    while rows.len() < limit && reader.read_record(&mut record).map_err(explain)? {
        let line = record.position().map_or(0, csv::Position::line);
        let mut fields: [Option<String>; FIELDS] = Default::default();
        for (column, text) in columns.iter().zip(&record) {
            if let Some(field) = fields.get_mut(*column) {
                *field = Some(text.to_owned());
            }
        }
        push(path, line, &mut rows, fields)?;
    }
    Ok(rows)
}

fn csv_reason(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} fields, but the header names {expected_len}")
        }
        csv::ErrorKind::Utf8 { err, .. } => {
            format!("is not UTF-8 (field {}); convert the file to UTF-8", err.field() + 1)
        }
        csv::ErrorKind::Io(e) => format!("cannot be read: {e}"),
        _ => format!("is not CSV: {error}"),
    }
}

fn unknown(path: &Path, line: u64, name: &str) -> Failure {
    Failure::line(path, line, format!("unknown field {name:?}; the fields are {}", NAMES.join(", ")))
}

/// Checks a row and appends it.
fn push(path: &Path, line: u64, rows: &mut Rows, fields: [Option<String>; FIELDS]) -> Result<(), Failure> {
    for name in REQUIRED {
        let field = field_index(name).and_then(|i| fields.get(i)).and_then(Option::as_deref);
        if field.unwrap_or_default().is_empty() {
            return Err(Failure::line(path, line, format!("the field {name:?} is missing or empty")));
        }
    }
    let row = fields.map(Option::unwrap_or_default);
    let [.., elevation, lat, lon, _, _] = &row;
    degrees("lat", lat, 90)
        .and(degrees("lon", lon, 180))
        .and(height(elevation))
        .map_err(|e| Failure::line(path, line, e.message()))?;
    if row.iter().map(String::len).sum::<usize>() > RECORD_BYTES_MAX {
        return Err(Failure::line(
            path,
            line,
            format!("the record holds more than {RECORD_BYTES_MAX} bytes"),
        ));
    }
    if rows.push(&row) {
        Ok(())
    } else {
        Err(Failure::line(path, line, "up to here there are 4 GiB of text; use --records to read less"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Rows, Failure> {
        read(Path::new("in"), Box::new(text), usize::MAX)
    }

    fn complaint(text: &str) -> String {
        parse(text.as_bytes()).err().map_or_else(|| "no error".to_owned(), |e| e.to_string())
    }

    #[test]
    fn the_embedded_set_is_whole() {
        let rows = embedded(usize::MAX).expect("embedded");
        assert_eq!(rows.len(), 28_298);
        let last = rows.airport(rows.len() - 1);
        assert!(!last.icao.is_empty() && !last.name.is_empty() && last.note.is_empty());
        assert_eq!(embedded(10).expect("embedded").len(), 10);
    }

    #[test]
    fn csv_and_json_lines_give_the_same_rows() {
        let csv = parse(b"name,lat,elevation,lon\r\n\"A, B Field\",1.50,12,-3\r\n").expect("csv");
        let json = parse(b"\n{\"name\":\"A, B Field\",\"lat\":\"1.50\",\"lon\":-3,\"elevation_ft\":12}\n")
            .expect("json");
        assert_eq!(csv.airport(0), json.airport(0));
        assert_eq!((csv.len(), json.len()), (1, 1));
    }

    #[test]
    fn numbers_in_json_need_no_exponent() {
        let rows = parse(b"{\"name\":\"x\",\"lat\":1e-7,\"lon\":-0.0,\"elevation\":null}").expect("json");
        let airport = rows.airport(0);
        assert_eq!((airport.lat.as_str(), airport.lon.as_str()), ("0.0000001", "0"));
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        let good = "{\"name\":\"x\",\"lat\":\"1\",\"lon\":\"2\"}\n";
        for (text, expected) in [
            ("", "in: holds no records"),
            ("[{}]", "line 1: is a JSON array"),
            (&format!("{good}{{\"name\":\"x\"}}"), "line 2: the field \"lat\" is missing"),
            (&format!("{good}{{\"name\":"), "line 2: is not a JSON object"),
            (&format!("{good}\n7"), "line 3: is not a JSON object"),
            ("{\"nome\":\"x\"}", "line 1: unknown field \"nome\"; the fields are icao"),
            ("{\"name\":[1],\"lat\":1,\"lon\":2}", "line 1: name: [1] is not text"),
            ("{\"name\":\"x\",\"lat\":true,\"lon\":2}", "line 1: lat: true is neither"),
            ("{\"name\":\"x\",\"lat\":\"N38\",\"lon\":\"2\"}", "line 1: lat: \"N38\" is not a plain decimal"),
            ("name,lat,lon\nx,91,0\n", "line 2: lat: 91 degrees are beyond ±90"),
            ("name,lat,lon\nx,1,2\nx,1\n", "line 3: has 2 fields, but the header names 3"),
            ("name,lat,lon,elevation\nx,1,2,high\n", "line 2: elevation: \"high\" is not"),
            ("name,lat,lon,name\n", "line 1: the column \"name\" is there twice"),
            ("this is not a table\n", "line 1: unknown field"),
        ] {
            let complaint = complaint(text);
            assert!(complaint.contains(expected), "{text:?} gave {complaint:?}, not {expected:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        for bytes in
            [&b"name,lat,lon\n\xff\xfe,1,2\n"[..], b"{\"name\":\"\xff\"}", b"\x1f\x8bnot gzip", b"\0\0\0"]
        {
            assert!(matches!(parse(bytes), Err(Failure::Input { .. })), "{bytes:?}");
        }
        assert!(file(Path::new("/no/such/file"), 1).is_err_and(|e| e.exit_code() == 3));
        assert!(file(Path::new("/"), 1).is_err());
    }
}
