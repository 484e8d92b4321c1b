//! A benchmark of migration pauses: how long do those who use a store wait while its records are migrated?
//!
//! For suites that measure migration pause latency, of this store or of any other. What is measured is a [`Subject`]: implement
//! it for your own store and your own types of records. [`measure`] takes one subject through one round (load, idle,
//! begin, backfill, rollback, resume, contract, sweep, all under load); [`run`] takes several through several rounds and
//! puts a [`Report`] together, which is a table (`Display`), a versioned JSON document ([`Report::to_json`]), interval
//! logs of HdrHistogram ([`Round::write_hlog`]) and pictures ([`svg`]).
//!
//! # What is measured
//!
//! * Load is an **open loop**: operations are due by a timetable ([`Pace`]), and latency is counted from when an operation was
//!   due. If a store stops for 200 ms, everyone who would have come meanwhile counts with what they would have waited.
//! * Every read is compared with what has to lie under its key, and at the end every record is; the subject is asked, too, how
//!   many records it left in an older form. A store that is fast because it skips work is reported as wrong.
//! * A [`Stall`] is reported as itself: when, how long, in which phase, and which [step](StepKind) of the migration was under
//!   way, as the subject notes them in [`Steps`]. With none under way it is the engine's own, and counted apart.
//! * A verb that a store does not have is answered by [`Ability::Cannot`], and its phases are left out.
//! * Before every round it is measured how late a thread wakes up that does nothing; that, the processor time that others took, and
//!   idle phases that differ, make the report say that [the machine was too noisy](Noise).
//!
//! # What is not
//!
//! Nothing is measured over a network, and no power is cut. Records under the keys 0, 1, 2 and so on are what there is.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use exuvia_bench::{Contender, Settings, subjects};
//!
//! # fn main() -> Result<(), exuvia_bench::Failure> {
//! let settings = Settings {
//!     records: 500,
//!     warm_up: Duration::from_millis(50),
//!     phase: Duration::from_millis(100),
//!     settle: Duration::from_millis(20),
//!     ..Settings::default()
//! };
//! let contenders = [subjects::exuvia_memory(150)];
//! let report = exuvia_bench::run(&contenders, &settings, 1, &|progress| eprintln!("{progress:?}"))?;
//! assert!(report.verified());
//! println!("{report}");
//! # Ok(())
//! # }
//! ```
//!
//! The command `exuvia bench` measures Exuvia and the hand-written loop that it has to be compared with; the package
//! `benches/rivals` of the repository adds other stores.

mod clock;
mod hlog;
mod keys;
mod latency;
mod load;
mod machine;
mod mix;
mod model;
mod noise;
mod output;
mod random;
mod report;
mod round;
mod schedule;
mod settings;
mod stall;
mod statistics;
mod steps;
mod subject;
pub mod subjects;
mod suite;
pub mod svg;
mod table;
#[cfg(test)]
mod tests;
mod worker;

pub use clock::{Clock, SimulatedClock, SystemClock};
pub use keys::{Chooser, Keys};
pub use latency::{Latencies, WINDOW};
pub use machine::Machine;
pub use mix::{Mix, Operation};
pub use noise::{Noise, calibrate};
pub use output::{Outputs, pictures};
pub use random::Random;
pub use report::{PhaseSummary, Report, SCHEMA, SubjectReport};
pub use round::{Checks, PHASES, PhaseResult, Point, Round, Stalls, VerbResult, measure};
pub use schedule::{Arrivals, Pace, Schedule};
pub use settings::Settings;
pub use stall::Stall;
pub use statistics::{Estimate, estimate, median};
pub use steps::{Step, StepKind, Steps};
pub use subject::{Ability, Failure, Refusal, Subject};
pub use suite::{Contender, Progress, run};
