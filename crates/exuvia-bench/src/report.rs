//! The result of a measurement: one value, which is also the JSON document.
//!
//! # The JSON document
//!
//! It is [`Report`] as serde writes it: the fields of the structs in this module and those they contain, under their
//! names. [`SCHEMA`] is the version of this layout; it changes when a field changes its meaning or goes. New fields may come
//! without a new version. Times say their unit in the field's name; histograms are lists of pairs (latency in ns,
//! count), exact to 0.1%. A report that was read can be [merged](Report::merge) with another of the same settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::latency::Latencies;
use super::machine::Machine;
use super::noise::{self, Noise};
use super::round::{PHASES, PhaseResult, Round};
use super::settings::Settings;
use super::statistics::{Estimate, estimate};
use super::subject::Failure;

/// The version of the JSON document.
pub const SCHEMA: u32 = 1;

/// All that was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The machine.
    pub machine: Machine,
    /// The load and the phases.
    pub settings: Settings,
    /// Every subject, with its rounds.
    pub subjects: Vec<SubjectReport>,
    /// How late a thread woke up that did nothing else, before each round.
    pub calibrations: Vec<Latencies>,
    /// Whether the machine was quiet enough.
    pub noise: Noise,
}

/// One subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubjectReport {
    /// Its name.
    pub name: String,
    /// When its writes are durable, and how it was tuned, in its own words.
    pub about: String,
    /// Its rounds.
    pub rounds: Vec<Round>,
    /// The latencies of each phase over all rounds, made of the histograms in `rounds`.
    #[serde(default)]
    pub summary: BTreeMap<String, PhaseSummary>,
}

/// Latencies of a phase over all rounds, in ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PhaseSummary {
    /// Half of all operations took at most this.
    pub p50_ms: Estimate,
    /// 99 of 100.
    pub p99_ms: Estimate,
    /// 999 of 1000.
    pub p999_ms: Estimate,
    /// All.
    pub max_ms: Estimate,
}

impl SubjectReport {
    /// A subject by its name, its durability and tuning in words, and its rounds.
    pub fn new(name: impl Into<String>, about: impl Into<String>, rounds: Vec<Round>) -> Self {
        let mut report = Self { name: name.into(), about: about.into(), rounds, summary: BTreeMap::new() };
        report.summarize();
        report
    }

    fn summarize(&mut self) {
        let summary = |phase: &&str| {
            let at = |q| self.latency_ms(phase, q);
            let of =
                PhaseSummary { p50_ms: at(0.5)?, p99_ms: at(0.99)?, p999_ms: at(0.999)?, max_ms: at(1.0)? };
            Some(((*phase).to_owned(), of))
        };
        self.summary = PHASES.iter().skip(1).filter_map(summary).collect();
    }

    /// A figure of a phase, of every round that has the phase.
    pub(crate) fn figures(&self, phase: &str, figure: impl Fn(&PhaseResult) -> f64) -> Vec<f64> {
        let phases = self.rounds.iter().filter_map(|round| round.phases.iter().find(|p| p.name == phase));
        phases.map(figure).collect()
    }

    /// The latency of a phase at quantile `q` (0 to 1) over all rounds, in ms; `None` if no round has the phase.
    pub fn latency_ms(&self, phase: &str, q: f64) -> Option<Estimate> {
        let figures = self.figures(phase, |phase| phase.all().quantile(q).as_secs_f64() * 1e3);
        (!figures.is_empty()).then(|| estimate(&figures, 1))
    }

    /// All latencies of a phase, of all rounds together.
    pub fn pooled(&self, phase: &str) -> Latencies {
        let mut sum = Latencies::default();
        for part in self.rounds.iter().flat_map(|round| &round.phases).filter(|part| part.name == phase) {
            sum.add(&part.all());
        }
        sum
    }

    /// The verb's duration over all rounds, in ms; `None` if it cannot be done, or was not.
    pub fn verb_ms(&self, verb: &str) -> Option<Estimate> {
        let verbs = self.rounds.iter().flat_map(|round| &round.verbs);
        let took = verbs.filter(|v| v.verb == verb && v.cannot.is_none()).map(|v| v.took_us as f64 / 1e3);
        let took: Vec<f64> = took.collect();
        (!took.is_empty()).then(|| estimate(&took, 1))
    }

    /// Why the subject cannot do a verb, if so.
    pub fn cannot(&self, verb: &str) -> Option<&str> {
        let mut verbs = self.rounds.iter().flat_map(|round| &round.verbs);
        verbs.find(|v| v.verb == verb).and_then(|v| v.cannot.as_deref())
    }

    /// Records rewritten in a second, over all rounds.
    pub fn backfill_records_per_s(&self) -> Estimate {
        estimate(&self.rounds.iter().map(|round| round.backfill_records_per_s).collect::<Vec<_>>(), 1)
    }

    /// Whether every round did all of its work.
    pub fn verified(&self) -> bool {
        !self.rounds.is_empty() && self.rounds.iter().all(|round| round.checks.verified)
    }
}

impl Report {
    /// Puts a report together, and judges the noise.
    pub fn new(settings: Settings, mut subjects: Vec<SubjectReport>, calibrations: Vec<Latencies>) -> Self {
        subjects.iter_mut().for_each(SubjectReport::summarize);
        let noise = noise::judge(&calibrations, &subjects);
        Self { schema: SCHEMA, machine: Machine::describe(), settings, subjects, calibrations, noise }
    }

    /// Reads a JSON document.
    ///
    /// # Errors
    ///
    /// No such document, or one of a schema that this version does not know.
    pub fn from_json(text: &str) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Versioned {
            schema: u32,
        }
        let wrong =
            |e: serde_json::Error| Failure::Setting(format!("this is no report of a measurement: {e}"));
        let Versioned { schema } = serde_json::from_str(text).map_err(wrong)?;
        if schema != SCHEMA {
            return Err(Failure::Setting(format!(
                "the report has schema {schema}, and this program knows {SCHEMA}; use the version that wrote it"
            )));
        }
        serde_json::from_str(text).map_err(wrong)
    }

    /// The JSON document.
    ///
    /// # Errors
    ///
    /// None that is known of: the value has no shape that JSON lacks.
    pub fn to_json(&self) -> Result<String, Failure> {
        serde_json::to_string(self)
            .map_err(|e| Failure::Setting(format!("the report cannot be written as JSON: {e}")))
    }

    /// Adds the rounds of another report: those of subjects that are there already follow theirs.
    ///
    /// # Errors
    ///
    /// Other settings (but for the seed) or another machine: their figures must not be mixed.
    pub fn merge(self, other: Report) -> Result<Report, Failure> {
        let mut comparable = other.settings.clone();
        comparable.seed = self.settings.seed;
        if comparable != self.settings || other.machine != self.machine {
            return Err(Failure::Setting(
                "the reports were made with different settings or on different machines; keep them apart"
                    .to_owned(),
            ));
        }
        let (mut subjects, mut calibrations) = (self.subjects, self.calibrations);
        for theirs in other.subjects {
            match subjects.iter_mut().find(|own| own.name == theirs.name) {
                Some(own) => own.rounds.extend(theirs.rounds),
                None => subjects.push(theirs),
            }
        }
        calibrations.extend(other.calibrations);
        Ok(Report { machine: self.machine, ..Report::new(self.settings, subjects, calibrations) })
    }

    /// Whether every subject did all of its work in every round.
    pub fn verified(&self) -> bool {
        self.subjects.iter().all(SubjectReport::verified)
    }
}
