//! What a migration was doing, and when.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::clock::Clock;

/// The most steps that are kept of a round; a subject that notes more has them counted, and not kept.
const STEPS_MAX: usize = 2_000_000;

/// What a migration does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StepKind {
    /// A call of the engine, made by background work.
    EngineCall,
    /// A flush of the engine.
    Flush,
    /// Readers and writers are switched from one version to another.
    Flip,
    /// A tree, table or file of the old version is dropped.
    Drop,
    /// A verb was under way, and nothing of the above.
    Verb,
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StepKind::EngineCall => "engine call",
            StepKind::Flush => "flush",
            StepKind::Flip => "flip",
            StepKind::Drop => "drop",
            StepKind::Verb => "verb",
        })
    }
}

/// One step, from when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What it was.
    pub kind: StepKind,
    /// When it began, on the harness' clock.
    pub began: Duration,
    /// When it ended.
    pub ended: Duration,
}

/// The steps of a round. Shared between the harness and the subject.
pub struct Steps {
    clock: Arc<dyn Clock>,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    steps: Vec<Step>,
    left_out: u64,
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps").field("steps", &self.noted.lock().steps.len()).finish_non_exhaustive()
    }
}

impl Steps {
    /// An empty list by this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, noted: Mutex::default() }
    }

    /// Notes a step that ended just now and took so long.
    pub fn ended(&self, kind: StepKind, took: Duration) {
        let ended = self.clock.now();
        self.note(Step { kind, began: ended.saturating_sub(took), ended });
    }

    /// Notes a step that began so long ago and took so long.
    pub fn ended_before(&self, kind: StepKind, ago: Duration, took: Duration) {
        let began = self.clock.now().saturating_sub(ago);
        self.note(Step { kind, began, ended: began + took });
    }

    /// Runs something as a step.
    pub fn during<R>(&self, kind: StepKind, run: impl FnOnce() -> R) -> R {
        let began = self.clock.now();
        let result = run();
        self.note(Step { kind, began, ended: self.clock.now() });
        result
    }

    /// Notes a step.
    pub fn note(&self, step: Step) {
        let mut noted = self.noted.lock();
        if noted.steps.len() < STEPS_MAX {
            noted.steps.push(step);
        } else {
            noted.left_out += 1;
        }
    }

    /// All steps so far, by their beginning.
    pub(crate) fn sorted(&self) -> Vec<Step> {
        let mut steps = self.noted.lock().steps.clone();
        steps.sort_by_key(|step| step.began);
        steps
    }
}
