//! Where the results of a measurement go: files for JSON, pictures and interval logs.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::report::Report;
use super::subject::Failure;
use super::svg;

/// The phases of which percentile curves are drawn.
const CURVES: [&str; 4] = ["idle", "backfill", "rollback", "contract"];

/// Where results go besides the table.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// The JSON document.
    pub json: Option<PathBuf>,
    /// Whether a document that is there already is read first and [merged](Report::merge) with the new one.
    pub append: bool,
    /// A directory for pictures: one for each subject and round, and percentile curves of all subjects.
    pub svg: Option<PathBuf>,
    /// A directory for interval logs: one for each subject and round that was measured now.
    pub hlog: Option<PathBuf>,
}

impl Outputs {
    /// Writes everything, and answers the report, merged if so.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written, or a report that cannot be merged with the one that is there.
    pub fn write(&self, report: Report) -> Result<Report, Failure> {
        if let Some(directory) = &self.hlog {
            make(directory)?;
            for (subject, round) in report.subjects.iter().flat_map(|s| s.rounds.iter().map(move |r| (s, r)))
            {
                let path = directory.join(format!("{}-seed-{}.hlog", file_name(&subject.name), round.seed));
                let failed = |e: std::io::Error| Failure::File { path: path.clone(), reason: e.to_string() };
                let mut out = BufWriter::new(std::fs::File::create(&path).map_err(failed)?);
                round.write_hlog(&subject.name, &mut out).and_then(|()| out.flush()).map_err(failed)?;
            }
        }
        let report = match self.json.as_ref().filter(|path| self.append && path.exists()) {
            Some(path) => Report::read(path)?.merge(report)?,
            None => report,
        };
        if let Some(path) = &self.json {
            write(path, &report.to_json()?)?;
        }
        if let Some(directory) = &self.svg {
            pictures(&report, directory)?;
        }
        Ok(report)
    }
}

impl Report {
    /// Reads a JSON document from a file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is no report.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path);
        Report::from_json(&text.map_err(|e| Failure::File { path: path.to_owned(), reason: e.to_string() })?)
    }

    /// Reads several documents and [merges](Report::merge) them; `None` if there is none.
    ///
    /// # Errors
    ///
    /// One that cannot be read, or not merged with those before it.
    pub fn read_all(paths: &[PathBuf]) -> Result<Option<Self>, Failure> {
        let mut merged: Option<Self> = None;
        for path in paths {
            let next = Report::read(path)?;
            merged = Some(match merged {
                Some(merged) => merged.merge(next)?,
                None => next,
            });
        }
        Ok(merged)
    }
}

/// Draws everything that there is to draw of a report.
///
/// # Errors
///
/// A directory or file that cannot be written.
pub fn pictures(report: &Report, directory: &Path) -> Result<(), Failure> {
    make(directory)?;
    for (subject, round) in report.subjects.iter().flat_map(|s| s.rounds.iter().map(move |r| (s, r))) {
        let name = format!("{}-seed-{}.svg", file_name(&subject.name), round.seed);
        write(&directory.join(name), &svg::over_time(subject, round)?)?;
    }
    for phase in CURVES {
        // A report of subjects that have no such phase has no such picture.
        if let Ok(picture) = svg::percentiles(report, phase) {
            write(&directory.join(format!("percentiles-{phase}.svg")), &picture)?;
        }
    }
    Ok(())
}

fn make(directory: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)
        .map_err(|e| Failure::File { path: directory.to_owned(), reason: e.to_string() })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|e| Failure::File { path: path.to_owned(), reason: e.to_string() })
}

fn file_name(subject: &str) -> String {
    subject.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::stalled;
    use super::super::{Settings, SubjectReport};
    use super::*;

    #[test]
    fn results_are_written_and_appended() {
        let directory = std::env::temp_dir().join(format!("exuvia-bench-output-{}", std::process::id()));
        let report = || {
            let rounds = vec![stalled()];
            let subject = SubjectReport::new("a b", "none", rounds);
            Report::new(Settings::default(), vec![subject], vec![])
        };
        let outputs = Outputs {
            json: Some(directory.join("report.json")),
            append: true,
            svg: Some(directory.join("svg")),
            hlog: Some(directory.join("hlog")),
        };
        for rounds in 1..=2 {
            let merged = outputs.write(report()).expect("written");
            assert_eq!(merged.subjects[0].rounds.len(), rounds);
        }
        for file in ["svg/a-b-seed-1.svg", "svg/percentiles-backfill.svg", "hlog/a-b-seed-1.hlog"] {
            assert!(directory.join(file).exists(), "{file}");
        }
        let both = vec![directory.join("report.json"); 2];
        let read = Report::read_all(&both).expect("read").expect("two documents");
        assert_eq!(
            (read.subjects[0].rounds.len(), Report::read_all(&[]).expect("none").is_none()),
            (4, true)
        );
        std::fs::write(directory.join("report.json"), "{}").expect("written");
        assert!(outputs.write(report()).is_err(), "what is no report is not overwritten");
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
