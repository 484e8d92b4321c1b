//! Looking into a store without its Rust types: status, verify, ledger.

use std::fmt::Write as _;
use std::path::Path;

use exuvia::Store;
use exuvia::measure::LedgerEntry;
use exuvia::migration::{Backfill, Status};
use exuvia::tools::{Inventory, Report};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::live;
use crate::report::{grouped, size};

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Tables, versions, migrations, quarantine, sizes.
    Status,
    /// Every checksum, and the ledger's chain.
    Verify,
    /// Every state change.
    Ledger,
}

/// What was found, and whether it is a failure all the same.
pub(crate) struct Answer {
    /// Text, or one JSON object.
    pub(crate) text: String,
    /// Set if something is damaged.
    pub(crate) failure: Option<Failure>,
}

/// Looks into the store at `path`; the answer is text, or one JSON object if `json` is set.
pub(crate) fn inspect(path: &Path, subject: Subject, json: bool) -> Result<Answer, Failure> {
    let options = Store::options().read_only(true);
    let store = options.open(path).map_err(|e| Failure::opening(path, e))?;
    let mut failure = None;
    let text = match subject {
        Subject::Status => {
            let (tables, migrations) = (store.inventory()?, store.migrations()?);
            let bytes = store.bytes_on_disk()?;
            if json {
                status_json(bytes, &tables, &migrations).to_string()
            } else {
                status_text(path, bytes, &tables, &migrations)
            }
        }
        Subject::Verify => {
            let report = store.verify()?;
            if !report.is_clean() {
                failure = Some(damaged(path, &report));
            }
            if json { report_json(&report).to_string() } else { report_text(&report) }
        }
        Subject::Ledger => {
            let entries = store.ledger()?;
            if json {
                json!({ "entries": entries.iter().map(entry_json).collect::<Vec<_>>() }).to_string()
            } else {
                let lines = entries.iter().map(entry_text).collect::<Vec<_>>();
                lines.join("\n")
            }
        }
    };
    store.close()?;
    Ok(Answer { text, failure })
}

/// Looks into a store that is open elsewhere, through its control socket.
pub(crate) fn live(
    path: &Path,
    socket: Option<&Path>,
    subject: Subject,
    json: bool,
) -> Result<Answer, Failure> {
    let verb = match subject {
        Subject::Status => "status",
        Subject::Ledger => "ledger",
        // It reads everything: not beside a program's traffic.
        Subject::Verify => return Err(Failure::Locked(path.to_path_buf())),
    };
    let answer = live::ask(path, socket, &json!({ "verb": verb }))?;
    let text = match subject {
        _ if json => answer.to_string(),
        Subject::Ledger => live::ledger_text(&answer),
        _ => live::status_text(path, &answer),
    };
    Ok(Answer { text, failure: None })
}

fn damaged(path: &Path, report: &Report) -> Failure {
    let place = path.display();
    let first = report.damage.first().map_or("", String::as_str);
    Failure::Verification(match report.damage_count {
        1 => format!("{place}: {first}; restore the record from a backup, or overwrite or remove it"),
        n => format!(
            "{place}: {} damages; the first: {first}; restore these records from a backup, or overwrite or \
             remove them",
            grouped(n)
        ),
    })
}

fn status_text(path: &Path, bytes: u64, tables: &[Inventory], migrations: &[Status]) -> String {
    let mut text = format!("{}: {} on disk", path.display(), size(bytes));
    if tables.is_empty() {
        text.push_str("\nno tables");
    }
    for table in tables {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n\ntable {}: version {} is active, {} is the oldest that can be read",
            table.table, table.active, table.floor
        );
        for (version, records) in &table.records {
            let _ = write!(text, "\n  {:>15} records of version {version}", grouped(*records));
        }
        let more = [
            (table.companions, "with a companion in the other version"),
            (table.derived, "derived by a backfill"),
            (table.tombstones, "tombstones"),
            (table.quarantined, "in quarantine: overwrite or remove them, or restart the backfill"),
            (table.damaged, "damaged: run `exuvia verify`"),
        ];
        for (count, what) in more.iter().filter(|(count, _)| *count > 0) {
            let _ = write!(text, "\n  {:>15} {what}", grouped(*count));
        }
    }
    for migration in migrations {
        let _ = write!(text, "\n\nmigration {}: {}", migration.name, migration.phase);
        if !migration.why.is_empty() {
            let _ = write!(text, " ({})", migration.why);
        }
        for table in &migration.tables {
            let _ = write!(text, "\n  table {}, version {} to {}", table.table, table.from, table.to);
            if table.metadata_only {
                text.push_str(", metadata only");
            }
            if !migration.phase.is_closed() && !table.metadata_only {
                let counts = &table.counts;
                let _ = write!(
                    text,
                    ": {:.0} % copied, {} records; {} brought forward",
                    migration.fraction * 100.0,
                    grouped(counts.copied),
                    grouped(counts.brought_forward)
                );
            }
        }
        for (set, what) in [
            (migration.one_way, "one way: it cannot be rolled back"),
            (migration.fenced, "writers of the new version are refused until it is resumed"),
            (migration.backfill == Backfill::Paused, "its backfill is paused"),
        ] {
            if set {
                let _ = write!(text, "\n  {what}");
            }
        }
    }
    text
}

fn status_json(bytes: u64, tables: &[Inventory], migrations: &[Status]) -> Value {
    let tables = tables.iter().map(table_json);
    let migrations = migrations.iter().map(|migration| {
        let tables = migration.tables.iter().map(|table| {
            json!({
                "table": table.table,
                "from": table.from,
                "to": table.to,
                "metadata_only": table.metadata_only,
                "copied": table.counts.copied,
                "brought_forward": table.counts.brought_forward,
                "quarantined": table.counts.quarantined,
            })
        });
        json!({
            "name": migration.name,
            "why": migration.why,
            "by": migration.by,
            "phase": migration.phase.to_string(),
            "one_way": migration.one_way,
            "fenced": migration.fenced,
            "paused": migration.backfill == Backfill::Paused,
            "fraction": migration.fraction,
            "tables": tables.collect::<Vec<_>>(),
        })
    });
    json!({
        "bytes_on_disk": bytes,
        "tables": tables.collect::<Vec<_>>(),
        "migrations": migrations.collect::<Vec<_>>(),
    })
}

/// A table's inventory.
pub(crate) fn table_json(table: &Inventory) -> Value {
    let records = table.records.iter().map(|(version, n)| (version.to_string(), *n));
    json!({
        "table": table.table,
        "active": table.active,
        "floor": table.floor,
        "records": records.collect::<std::collections::BTreeMap<_, _>>(),
        "companions": table.companions,
        "derived": table.derived,
        "tombstones": table.tombstones,
        "quarantined": table.quarantined,
        "damaged": table.damaged,
    })
}

fn report_text(report: &Report) -> String {
    let mut text = String::new();
    for damage in &report.damage {
        let _ = writeln!(text, "{damage}");
    }
    let left_out = report.damage_count - report.damage.len() as u64;
    if left_out > 0 {
        let _ = writeln!(text, "... and {} more", grouped(left_out));
    }
    let _ = write!(
        text,
        "{} records and {} ledger entries read; {} in quarantine, {} damaged",
        grouped(report.records),
        grouped(report.ledger_entries),
        grouped(report.quarantined),
        grouped(report.damage_count)
    );
    text
}

fn report_json(report: &Report) -> Value {
    json!({
        "clean": report.is_clean(),
        "records": report.records,
        "ledger_entries": report.ledger_entries,
        "quarantined": report.quarantined,
        "damage_count": report.damage_count,
        "damage": report.damage,
    })
}

fn entry_text(entry: &LedgerEntry) -> String {
    let mut text = format!("{:>4}  {}  {:<12} {}", entry.seq, utc(entry.at_ms), entry.what, entry.subject);
    if !entry.why.is_empty() {
        let _ = write!(text, ": {}", entry.why);
    }
    if !entry.by.is_empty() {
        let _ = write!(text, " (by {})", entry.by);
    }
    let counts = entry.counts.iter().map(|(name, n)| format!("{name} {}", grouped(*n)));
    let counts: Vec<_> = counts.collect();
    if !counts.is_empty() {
        let _ = write!(text, "; {}", counts.join(", "));
    }
    let _ = write!(text, "; {}", crate::report::duration(entry.duration_us as f64));
    text
}

fn entry_json(entry: &LedgerEntry) -> Value {
    let previous = entry.previous.iter().map(|byte| format!("{byte:02x}"));
    json!({
        "seq": entry.seq,
        "at_ms": entry.at_ms,
        "what": entry.what,
        "subject": entry.subject,
        "why": entry.why,
        "by": entry.by,
        "duration_us": entry.duration_us,
        "counts": entry.counts.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "previous": previous.collect::<String>(),
    })
}

/// A moment in the proleptic Gregorian calendar, in UTC.
pub(crate) fn utc(at_ms: u64) -> String {
    let (days, ms) = (at_ms / 86_400_000, at_ms % 86_400_000);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    // Years are counted from March, so that the day that a leap year has more is the last one of its year; 400
    // of them are 146 097 days, and 1970-01-01 is day 719 468 after 0000-03-01.
    let day = days + 719_468;
    let (cycle, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..=9 => (cycle * 400 + year, month + 3),
        _ => (cycle * 400 + year + 1, month - 9),
    };
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn moments_have_the_date_that_a_calendar_says() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (1_709_164_800, "2024-02-29 00:00:00Z"),
            (1_735_689_599, "2024-12-31 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(utc(seconds * 1000), expected);
        }
    }
}
