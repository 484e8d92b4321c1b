//! Several subjects in several rounds, which alternate: what the machine does meanwhile, it does to all of them.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, SystemClock};
use super::noise;
use super::report::{Report, SubjectReport};
use super::round::{Round, measure, peak};
use super::schedule::Pace;
use super::settings::Settings;
use super::subject::{Failure, Subject};

/// How long the machine is calibrated before each round.
const CALIBRATION: Duration = Duration::from_millis(500);

/// A subject that can be opened anew for each round. Subjects with different types of records are of one kind here.
pub struct Contender {
    name: String,
    about: String,
    #[expect(clippy::type_complexity, reason = "it is called in one place, and named nowhere")]
    measure: Box<dyn Fn(&Settings, u32, &dyn Fn(&str)) -> Result<Round, Failure>>,
}

impl std::fmt::Debug for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contender").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Contender {
    /// A subject by its name, its durability and tuning in words, and a function that opens an empty one. Each is dropped after
    /// its round; what it has on disk should go then.
    pub fn new<S: Subject + 'static>(
        name: impl Into<String>,
        about: impl Into<String>,
        open: impl Fn() -> Result<S, Failure> + 'static,
    ) -> Self {
        let measure = move |settings: &Settings, round: u32, tell: &dyn Fn(&str)| {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            let mut settings = settings.clone();
            if let Pace::OfPeak { percent, arrivals } = settings.pace {
                tell("peak");
                let rate = peak(&Arc::new(open()?), &settings, &clock)? * percent / 100;
                settings.pace = Pace::Open { rate: rate.max(1), arrivals };
            }
            measure(&Arc::new(open()?), &settings, &clock, round, tell)
        };
        Self { name: name.into(), about: about.into(), measure: Box::new(measure) }
    }

    /// The same under another name, where one kind of subject is measured with several settings.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Where a suite is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The subject.
    pub subject: &'a str,
    /// The round, from 0.
    pub round: u32,
    /// What begins: `peak`, `load`, a phase, or `verify`.
    pub stage: &'a str,
}

/// Measures all contenders in `rounds` rounds. In each round everyone has its turn, and who begins changes from round to round.
/// Round *n* has the seed of the settings plus *n*, the same for all.
///
/// # Errors
///
/// As [`measure`]; the first failure ends it.
pub fn run(
    contenders: &[Contender],
    settings: &Settings,
    rounds: u32,
    tell: &dyn Fn(Progress<'_>),
) -> Result<Report, Failure> {
    settings.check()?;
    let mut subjects: Vec<SubjectReport> =
        contenders.iter().map(|c| SubjectReport::new(&*c.name, &*c.about, Vec::new())).collect();
    let mut calibrations = Vec::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    for round in 0..rounds {
        let seeded = Settings { seed: settings.seed.wrapping_add(u64::from(round)), ..settings.clone() };
        for turn in 0..contenders.len() {
            let who = (turn + round as usize) % contenders.len();
            let (Some(contender), Some(subject)) = (contenders.get(who), subjects.get_mut(who)) else {
                continue;
            };
            calibrations.push(noise::calibrate(&clock, CALIBRATION));
            let tell = |stage: &str| tell(Progress { subject: &contender.name, round, stage });
            subject.rounds.push((contender.measure)(&seeded, round, &tell)?);
        }
    }
    Ok(Report::new(settings.clone(), subjects, calibrations))
}
