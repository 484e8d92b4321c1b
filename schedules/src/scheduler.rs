//! Who goes on: three ways to choose, all of them by a seed.

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use crate::linear::program::Rng;

/// A way to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Anybody, at every point: many small mixtures.
    Random,
    /// Whoever goes on does so for a while, of a length that each schedule draws: so that one thread can stand still in a
    /// bad place while another does much.
    Bursts,
    /// By priorities that change at a few points (Burckhardt et al., "A randomized scheduler with probabilistic guarantees
    /// of finding bugs", 2010).
    Pct,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Random, Way::Bursts, Way::Pct];

    pub fn name(self) -> &'static str {
        match self {
            Way::Random => "random",
            Way::Bursts => "bursts",
            Way::Pct => "pct",
        }
    }
}

/// One schedule.
pub struct Chosen {
    way: Way,
    seed: u64,
    rng: Rng,
    started: bool,
    /// Points passed.
    steps: usize,
    /// Bursts: the mean length, and what is left of this one.
    mean: usize,
    left: usize,
    /// Pct: priorities by task, and the points at which the one that runs falls below all others.
    priorities: Vec<i64>,
    changes: Vec<usize>,
    lowest: i64,
}

impl Chosen {
    pub fn new(way: Way, seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5EED);
        let mean = *rng.pick(&[3, 10, 30, 100, 300, 1000]);
        let length = *rng.pick(&[500, 1000, 2000, 4000]);
        let changes = (0..1 + rng.below(6)).map(|_| rng.below(length)).collect();
        let (priorities, left) = (Vec::new(), 0);
        Self { way, seed, rng, started: false, steps: 0, mean, left, priorities, changes, lowest: 0 }
    }

    fn burst(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> TaskId {
        let stays = current.filter(|id| !is_yielding && runnable.iter().any(|task| task.id() == *id));
        if let Some(id) = stays
            && self.left > 0
        {
            self.left -= 1;
            return id;
        }
        self.left = self.rng.below(2 * self.mean);
        let others: Vec<TaskId> =
            runnable.iter().map(|task| task.id()).filter(|id| Some(*id) != current).collect();
        if others.is_empty() { runnable[0].id() } else { *self.rng.pick(&others) }
    }

    fn by_priority(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> TaskId {
        let falls = is_yielding || self.changes.contains(&self.steps);
        if let Some(current) = current.filter(|_| falls) {
            self.lowest -= 1;
            let lowest = self.lowest;
            *self.priority(current) = lowest;
        }
        let ids: Vec<TaskId> = runnable.iter().map(|task| task.id()).collect();
        *ids.iter().max_by_key(|id| *self.priority(**id)).expect("there is a task that can go on")
    }

    fn priority(&mut self, task: TaskId) -> &mut i64 {
        let task = usize::from(task);
        while self.priorities.len() <= task {
            let drawn = (self.rng.number() >> 2) as i64;
            self.priorities.push(drawn);
        }
        &mut self.priorities[task]
    }
}

impl Scheduler for Chosen {
    fn new_execution(&mut self) -> Option<Schedule> {
        (!std::mem::replace(&mut self.started, true)).then(|| Schedule::new(self.seed))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        self.steps += 1;
        Some(match self.way {
            Way::Random => runnable[self.rng.below(runnable.len())].id(),
            Way::Bursts => self.burst(runnable, current, is_yielding),
            Way::Pct => self.by_priority(runnable, current, is_yielding),
        })
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.number()
    }
}
