//! A store that another process has open, by its control socket (docs/control.md).

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::failure::Failure;
use crate::inspect::utc;
use crate::report::size;

/// The socket's name in a store's directory, if the program chose no other place.
const SOCKET: &str = "control.sock";

/// Sends one request to the store in `path`, and answers what it says.
pub(crate) fn ask(path: &Path, socket: Option<&Path>, request: &Value) -> Result<Value, Failure> {
    /// Longer than anything that a store does for a client at once, short of a hang.
    const ANSWER_WAIT: Duration = Duration::from_secs(60);
    ask_for(path, socket, request, Some(ANSWER_WAIT))
}

/// As [`ask`], for what takes as long as there is to do.
pub(crate) fn ask_patiently(path: &Path, socket: Option<&Path>, request: &Value) -> Result<Value, Failure> {
    ask_for(path, socket, request, None)
}

#[cfg(unix)]
fn ask_for(
    path: &Path,
    socket: Option<&Path>,
    request: &Value,
    wait: Option<Duration>,
) -> Result<Value, Failure> {
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::net::UnixStream;

    const ANSWER_BYTES_MAX: u64 = 64 << 20;

    let at = socket.map_or_else(|| path.join(SOCKET), Path::to_path_buf);
    let failed = |what: &str, e: std::io::Error| Failure::input(&at, format!("{what}: {e}"));
    let mut stream = match UnixStream::connect(&at) {
        Ok(stream) => stream,
        Err(_) if socket.is_none() => return Err(Failure::Locked(path.to_path_buf())),
        Err(e) => return Err(failed("no program answers on this control socket", e)),
    };
    let mut request = request.clone();
    request["exuvia"] = 1.into();
    stream
        .set_read_timeout(wait)
        .and_then(|()| stream.set_write_timeout(wait))
        .map_err(|e| failed("socket", e))?;
    let sent = std::io::Write::write_all(&mut stream, format!("{request}\n").as_bytes());
    sent.map_err(|e| failed("the request cannot be sent", e))?;
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(ANSWER_BYTES_MAX));
    reader.read_until(b'\n', &mut line).map_err(|e| failed("no answer came", e))?;
    let answer: Value = serde_json::from_slice(&line)
        .map_err(|e| Failure::Store(format!("{}: its answer is not understood: {e}", at.display())))?;
    if let Some(ok) = answer.get("ok") {
        return Ok(ok.clone());
    }
    let message = answer["error"]["message"].as_str().unwrap_or("it refused without a word").to_owned();
    Err(match answer["error"]["kind"].as_str() {
        Some("state" | "conflict") => Failure::Refused(message),
        Some("corrupt") => Failure::Verification(message),
        _ => Failure::Store(format!("{}: {message}", at.display())),
    })
}

#[cfg(not(unix))]
fn ask_for(
    path: &Path,
    _socket: Option<&Path>,
    _request: &Value,
    _wait: Option<Duration>,
) -> Result<Value, Failure> {
    Err(Failure::Locked(path.to_path_buf()))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(crate) fn status_text(path: &Path, answer: &Value) -> String {
    let bytes = answer["bytes_on_disk"].as_u64().unwrap_or_default();
    // Writing to a String cannot fail.
    let mut out = format!("{}: open in another process, {} on disk", path.display(), size(bytes));
    for table in list(&answer["tables"]) {
        let (name, active, floor) = (text(&table["table"]), &table["active"], &table["floor"]);
        let _ = write!(
            out,
            "\n\ntable {name}: version {active} is active, {floor} is the oldest that can be read"
        );
    }
    for migration in list(&answer["migrations"]) {
        let _ = write!(out, "\n\nmigration {}: {}", text(&migration["name"]), text(&migration["phase"]));
        if !text(&migration["why"]).is_empty() {
            let _ = write!(out, " ({})", text(&migration["why"]));
        }
        let _ = write!(out, "\n  backfill {}", text(&migration["backfill"]));
        if let Some(waits) = migration["waits"].as_str() {
            let _ = write!(out, ": {waits}");
        }
        let percent = migration["fraction"].as_f64().unwrap_or_default() * 100.0;
        let _ = write!(out, ", {percent:.0} % copied");
        if let Some(rate) = migration["records_per_s"].as_f64() {
            let _ = write!(out, ", {rate:.0} records/s");
        }
        for table in list(&migration["tables"]) {
            let (name, from, to) = (text(&table["table"]), &table["from"], &table["to"]);
            let _ = write!(out, "\n  table {name}, version {from} to {to}");
            let _ =
                write!(out, ": {} records; {} brought forward", table["copied"], table["brought_forward"]);
        }
    }
    out
}

pub(crate) fn ledger_text(answer: &Value) -> String {
    let lines = list(&answer["entries"]).map(|entry| {
        let at = utc(entry["at_ms"].as_u64().unwrap_or_default());
        let (seq, what) = (entry["seq"].as_u64().unwrap_or_default(), text(&entry["what"]));
        let mut line = format!("{seq:>4}  {at}  {what:<12} {}", text(&entry["subject"]));
        for (part, before, after) in [("why", ": ", ""), ("by", " (by ", ")")] {
            if !text(&entry[part]).is_empty() {
                let _ = write!(line, "{before}{}{after}", text(&entry[part]));
            }
        }
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}
