//! What each subject offers afterwards, and how long reads and writes waited for its migration.

use std::fmt::Write;

use exuvia_bench::{Latencies, Operation, Report, SubjectReport};

/// The second table: rollback (as measured, or why not), and the longest that a read and a write waited between `begin` and the
/// end of the backfill, beside the longest of the idle phase.
pub fn table(report: &Report) -> String {
    let mut table = String::new();
    let head = ["subject", "rollback", "keeps new writes", "old program reads on", "read", "write"];
    let _infallible = writeln!(
        table,
        "What each offers afterwards; the longest wait of a read and of a write during the migration (idle), in ms\n\
         {:<20} {:<14} {:<17} {:<21} {:>16} {:>16}",
        head[0], head[1], head[2], head[3], head[4], head[5]
    );
    for subject in &report.subjects {
        let (rollback, keeps, old) = match subject.verb_ms("rollback") {
            // That every write since `begin` is read after the rollback is what the harness compares.
            Some(took) => (format!("{:.2} ms", took.median), "yes, compared", "yes"),
            None => ("no".to_owned(), "-", "no"),
        };
        let _infallible = writeln!(
            table,
            "{:<20} {rollback:<14} {keeps:<17} {old:<21} {:>16} {:>16}",
            subject.name,
            longest(subject, &[Operation::Read, Operation::Scan]),
            longest(subject, &[Operation::Update, Operation::Remove]),
        );
    }
    table
}

fn longest(subject: &SubjectReport, operations: &[Operation]) -> String {
    let of = |phases: &[&str]| {
        let all = subject.rounds.iter().flat_map(|round| &round.phases);
        let phases = all.filter(|phase| phases.contains(&phase.name.as_str()));
        let parts = phases.flat_map(|phase| operations.iter().filter_map(|op| phase.operations.get(op)));
        parts.map(Latencies::max).max().unwrap_or_default().as_secs_f64() * 1e3
    };
    format!("{:.1} ({:.1})", of(&["begin", "backfill"]), of(&["idle"]))
}
