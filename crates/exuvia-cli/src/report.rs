//! What a demo found, as a table for people and as one JSON object for programs.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::latency::PhaseSummary;

/// The result of a demo. The names of the fields are those of the JSON object.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Summary {
    /// Distinct records that were loaded.
    pub(crate) records: u64,
    /// Mean encoded size of a record at version 1, in bytes.
    pub(crate) record_bytes: f64,
    /// Whether every record was compared with the model at every open view, every time, and none differed.
    pub(crate) verified: bool,
    /// Comparisons of a record with the model while the traffic was halted: every record at every open view.
    pub(crate) compared: u64,
    /// Comparisons of what a foreground operation read.
    pub(crate) checked: u64,
    /// Differences from the model, and failed operations.
    pub(crate) wrong: u64,
    /// The first of them.
    pub(crate) differences: Vec<String>,
    /// Records loaded in a second, before the traffic.
    pub(crate) load_records_per_s: f64,
    /// Records backfilled in a second, under the traffic.
    pub(crate) backfill_records_per_s: f64,
    /// The longest call of rollback, under the traffic, in microseconds.
    pub(crate) rollback_us: f64,
    /// The longest pause of a foreground call that a migration caused, in microseconds.
    pub(crate) longest_pause_us: f64,
    /// Size of the store on the disk before the first migration.
    pub(crate) bytes_before: u64,
    /// Size of the store on the disk after the last sweep.
    pub(crate) bytes_after: u64,
    /// Foreground operations due in a second.
    pub(crate) rate: u64,
    /// Foreground threads.
    pub(crate) threads: usize,
    /// Operations at a view that was closed just then.
    pub(crate) refused: u64,
    /// Operations that were due but not done because the foreground was seconds behind.
    pub(crate) undone: u64,
    /// What the generator shows when there is no store behind it: a part of every latency below.
    pub(crate) generator_floor: PhaseSummary,
    /// Foreground latencies by phase, counted from when an operation was due.
    pub(crate) phases: Phases,
    /// Seconds for everything.
    pub(crate) seconds: f64,
    /// Where the store is, if it was kept.
    pub(crate) path: Option<String>,
}

/// Latencies by phase, in the order in which the phases first ran.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Phases(pub(crate) Vec<(String, PhaseSummary)>);

impl Phases {
    /// The phase of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&PhaseSummary> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, phase)| phase)
    }
}

impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, phase) in &self.0 {
            map.serialize_entry(name, phase)?;
        }
        map.end()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, rate) = (grouped(self.records), grouped(self.rate));
        writeln!(
            f,
            "{records} records of {:.0} bytes moved from v1 to v2 to v3 while {} threads made\n\
             {rate} operations/s. Each migration was rolled back half-way and resumed.\n",
            self.record_bytes, self.threads
        )?;
        let verdict = match (self.verified, self.wrong) {
            (true, _) => "yes, 0 wrong".to_owned(),
            (false, 0) => "NO, not every record was compared".to_owned(),
            (false, wrong) => format!("NO, {} WRONG", grouped(wrong)),
        };
        let (compared, checked) = (grouped(self.compared), grouped(self.checked));
        field(f, "verified", &format!("{verdict}: every record at every open view, {compared}"))?;
        field(f, "", &format!("comparisons with a separate model, and {checked} reads under load"))?;
        for difference in &self.differences {
            field(f, "", difference)?;
        }
        let rollback = duration(self.rollback_us);
        field(f, "rollback", &format!("{rollback} for all records: one durable flip, nothing is rewritten"))?;
        let (pause, budget) = (duration(self.longest_pause_us), exuvia::Budget::default().pause());
        field(
            f,
            "longest pause",
            &format!("{pause} that a migration added to any call (budget {budget:?})"),
        )?;
        let (backfill, load) = (self.backfill_records_per_s, self.load_records_per_s);
        field(
            f,
            "backfill",
            &format!(
                "{} records/s in the background (load: {} records/s)",
                grouped(backfill as u64),
                grouped(load as u64)
            ),
        )?;
        let (before, after) = (size(self.bytes_before), size(self.bytes_after));
        field(f, "disk", &format!("{before} before, {after} after"))?;
        if self.refused + self.undone > 0 {
            let (refused, undone) = (grouped(self.refused), grouped(self.undone));
            field(
                f,
                "traffic",
                &format!("{refused} operations refused at a closed view, {undone} not done in time"),
            )?;
        }
        if let Some(path) = &self.path {
            field(f, "store", path)?;
        }
        self.latencies(f)?;
        write!(f, "all of it took {:.1} s", self.seconds)
    }
}

impl Summary {
    fn latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<11} {:>10} {:>8} {:>8} {:>8} {:>8}",
            "phase", "operations", "p50", "p99", "p99.9", "max"
        )?;
        for (name, phase) in &self.phases.0 {
            row(f, name, phase)?;
        }
        row(f, "(no store)", &self.generator_floor)?;
        writeln!(f, "latencies from when an operation was due: a stall counts for all who waited")?;
        if let (Some(idle), Some(backfill)) = (self.phases.get("idle"), self.phases.get("backfill"))
            && idle.p99_us > 0.0
        {
            let ratio = backfill.p99_us / idle.p99_us;
            writeln!(f, "p99 during backfill is {ratio:.2} x idle")?;
        }
        Ok(())
    }
}

fn field(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "{name:<14} {text}")
}

/// What a phase is, for who sees its name for the first time.
fn meaning(phase: &str) -> &'static str {
    match phase {
        "idle" => "before everything",
        "begin" => "new code arrives",
        "backfill" => "records rewritten",
        "rollback" => "old version active",
        "resume" => "new version active",
        "contract" => "old version ends",
        "sweep" => "its remains go",
        "(no store)" => "generator alone",
        _ => "",
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, phase: &PhaseSummary) -> fmt::Result {
    writeln!(
        f,
        "{name:<11} {:>10} {:>8} {:>8} {:>8} {:>8}  {}",
        grouped(phase.ops),
        duration(phase.p50_us),
        duration(phase.p99_us),
        duration(phase.p999_us),
        duration(phase.max_us),
        meaning(name)
    )
}

/// A number with its digits in threes.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// A time in the unit that suits it, to three digits.
pub(crate) fn duration(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 999.5 => (us, "us"),
        us if us < 999_500.0 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    match value {
        v if v < 9.995 => format!("{v:.2} {unit}"),
        v if v < 99.95 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

pub(crate) fn size(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 20) {
        mib if mib < 1024.0 => format!("{mib:.1} MiB"),
        mib => format!("{:.2} GiB", mib / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_three_digits_and_its_unit() {
        for (us, expected) in [
            (0.0, "0.00 us"),
            (31.66, "31.7 us"),
            (999.4, "999 us"),
            (999.6, "1.00 ms"),
            (9_996.0, "10.0 ms"),
            (999_600.0, "1.00 s"),
            (5e9, "5000 s"),
        ] {
            assert_eq!(duration(us), expected);
        }
    }

    fn summary() -> Summary {
        let phase =
            |p99_us| PhaseSummary { ops: 12_345, p50_us: 20.0, p99_us, p999_us: 2_500.0, max_us: 3e6 };
        let phases = ["idle", "backfill", "rollback", "contract"];
        let phases =
            phases.iter().enumerate().map(|(n, name)| ((*name).to_owned(), phase((n + 1) as f64 * 100.0)));
        Summary {
            records: 1_000_000,
            record_bytes: 150.0,
            verified: true,
            compared: 6_000_000,
            checked: 1234,
            wrong: 0,
            differences: Vec::new(),
            load_records_per_s: 1e5,
            backfill_records_per_s: 2e4,
            rollback_us: 812.5,
            longest_pause_us: 950.0,
            bytes_before: 200 << 20,
            bytes_after: 3 << 30,
            rate: 20_000,
            threads: 4,
            refused: 0,
            undone: 0,
            generator_floor: phase(70.0),
            phases: Phases(phases.collect()),
            seconds: 61.25,
            path: None,
        }
    }

    #[test]
    fn the_json_object_has_the_promised_fields() {
        let value = serde_json::to_value(summary()).expect("json");
        assert_eq!(value["records"], 1_000_000);
        assert_eq!(value["verified"], true);
        for field in
            ["rollback_us", "longest_pause_us", "backfill_records_per_s", "bytes_before", "bytes_after"]
        {
            assert!(value[field].is_number(), "{field}");
        }
        for phase in ["idle", "backfill", "rollback", "contract"] {
            for field in ["ops", "p50_us", "p99_us", "p999_us", "max_us"] {
                assert!(value["phases"][phase][field].is_number(), "{phase}.{field}");
            }
        }
    }

    #[test]
    fn the_table_is_for_people() {
        let table = summary().to_string();
        for part in [
            "1 000 000 records of 150 bytes",
            "yes, 0 wrong: every record at every open view, 6 000 000",
            "812 us",
            "200.0 MiB before, 3.00 GiB after",
            "2.50 ms",
            "3.00 s",
            "p99 during backfill is 2.00 x idle",
        ] {
            assert!(table.contains(part), "{part:?} is not in\n{table}");
        }
        assert!(table.lines().all(|line| line.len() <= 80), "too wide for a terminal:\n{table}");
        let wrong = Summary { verified: false, differences: vec!["key 7 at v2: gone".into()], ..summary() };
        assert!(
            wrong.to_string().contains("NO, not every") && wrong.to_string().contains("key 7 at v2: gone")
        );
    }
}
