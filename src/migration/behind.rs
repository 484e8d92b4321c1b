//! Old writers that write faster than the backfill brings forward: whoever waits for its end is told, or would wait for ever.

use std::time::Duration;

use crate::sync::Instant;

/// For how long a backlog may not get smaller.
const PATIENCE: Duration = Duration::from_secs(5);

/// What old writers left to bring forward, in all tables of a migration whose base is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) records: u64,
    /// Ever put into it.
    pub(super) pushed: u64,
    /// Passes over an overlay that were begun, because the backlog was not known or too long to be kept.
    pub(super) passes: u64,
    /// One is under way, which takes its time.
    pub(super) passing: bool,
    /// Tables, each of which may need a pass.
    pub(super) tables: u64,
}

/// Watches a backlog for one caller that waits.
#[derive(Debug, Default)]
pub(super) struct Watch {
    passes: Option<u64>,
    /// When it was smallest, and how small.
    least: Option<(Instant, Backlog)>,
}

impl Watch {
    /// Whether the writers are faster: it did not get smaller for a while in which they wrote, or was too long to be kept
    /// once more while a pass went over it. `None`: the base is not copied yet.
    pub(super) fn is_behind(&mut self, now: Instant, backlog: Option<Backlog>) -> bool {
        let Some(backlog) = backlog else {
            *self = Self::default();
            return false;
        };
        let begun = *self.passes.get_or_insert(backlog.passes);
        if backlog.passes > begun + backlog.tables {
            return true;
        }
        match self.least {
            Some((at, least)) if !backlog.passing && backlog.records >= least.records => {
                backlog.pushed > least.pushed && now.duration_since(at) >= PATIENCE
            }
            _ => {
                self.least = Some((now, backlog));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_behind_if_it_does_not_shrink_although_it_is_worked_on() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let backlog =
            |records, pushed| Some(Backlog { records, pushed, passes: 0, passing: false, tables: 1 });
        let mut watch = Watch::default();
        assert!(!watch.is_behind(now, backlog(10, 10)));
        assert!(!watch.is_behind(after(4999), backlog(12, 90)));
        assert!(watch.is_behind(after(5000), backlog(10, 99)));
        assert!(!watch.is_behind(after(6000), backlog(9, 100)), "it shrinks");
        assert!(
            !watch.is_behind(after(20_000), backlog(9, 100)),
            "nobody writes: it is the cast that takes long"
        );
        assert!(watch.is_behind(after(20_001), backlog(9, 101)));
        assert!(!watch.is_behind(after(30_000), None), "it was begun again");
        assert!(!watch.is_behind(after(40_000), backlog(10, 200)));
    }

    #[test]
    fn a_pass_takes_its_time_and_a_second_one_says_that_it_was_not_enough() {
        let now = Instant::now();
        let after = |s| now + Duration::from_secs(s);
        let pass = |passes| Some(Backlog { records: 5, pushed: passes, passes, passing: true, tables: 1 });
        let mut watch = Watch::default();
        assert!(!watch.is_behind(now, pass(3)));
        assert!(!watch.is_behind(after(1000), pass(4)));
        assert!(!watch.is_behind(after(2000), pass(4)));
        assert!(watch.is_behind(after(2001), pass(5)));
    }
}
