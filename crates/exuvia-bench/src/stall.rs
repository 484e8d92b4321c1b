//! Stalls: when calls took long, what was under way, and whether that was the migration. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mix::Operation;
use super::steps::{Step, StepKind};

/// A call that took long, by itself: not counting what it waited before it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slow {
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    pub(crate) operation: Operation,
    /// The phase in which it waited longest.
    pub(crate) phase: usize,
}

/// A time during which calls were slow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// When its first call began, in µs since the beginning of the round.
    pub began_us: u64,
    /// From there to the end of its last call, in µs.
    pub length_us: u64,
    /// The longest of its calls, in µs.
    pub longest_us: u64,
    /// Slow calls that overlap.
    pub calls: u64,
    /// The kind of the longest.
    pub operation: Operation,
    /// The phase of the longest.
    pub phase: String,
    /// The step that overlaps the longest call most, and for how many µs; `None`: nothing was in flight, so it is the
    /// engine's own, or the machine's.
    pub step: Option<(StepKind, u64)>,
}

/// Puts slow calls that overlap together, and finds what was under way. Both lists are sorted by their beginning.
pub(crate) fn stalls(slow: &[Slow], steps: &[Step], phases: &[String]) -> Vec<Stall> {
    let mut stalls = Vec::new();
    let mut rest = slow;
    // Steps before this one ended before every call that is still to come, if none is longer than the longest.
    let longest_step =
        steps.iter().map(|step| step.ended.saturating_sub(step.began)).max().unwrap_or_default();
    while let Some(first) = rest.first() {
        let mut end = first.ended;
        let mut count = 0;
        for call in rest {
            if call.began > end {
                break;
            }
            end = end.max(call.ended);
            count += 1;
        }
        let (group, later) = rest.split_at(count);
        rest = later;
        let Some(longest) = group.iter().max_by_key(|call| call.ended.saturating_sub(call.began)) else {
            break;
        };
        stalls.push(Stall {
            began_us: us(first.began),
            length_us: us(end.saturating_sub(first.began)),
            longest_us: us(longest.ended.saturating_sub(longest.began)),
            calls: count as u64,
            operation: longest.operation,
            phase: phases.get(longest.phase).cloned().unwrap_or_default(),
            step: under_way(longest, steps, longest_step),
        });
    }
    stalls
}

/// The step that overlaps a call most. A verb counts only if nothing more exact does: it is under way all the time that its steps
/// are.
fn under_way(call: &Slow, steps: &[Step], longest_step: Duration) -> Option<(StepKind, u64)> {
    let from = steps.partition_point(|step| step.began + longest_step < call.began);
    let mut overlaps: Vec<(StepKind, Duration)> = Vec::new();
    for step in steps.iter().skip(from).take_while(|step| step.began < call.ended) {
        let overlap = step.ended.min(call.ended).saturating_sub(step.began.max(call.began));
        if overlap.is_zero() {
            continue;
        }
        match overlaps.iter_mut().find(|(kind, _)| *kind == step.kind) {
            Some((_, sum)) => *sum += overlap,
            None => overlaps.push((step.kind, overlap)),
        }
    }
    let exact = |(kind, overlap): &&(StepKind, Duration)| (*kind != StepKind::Verb, *overlap);
    overlaps.iter().max_by_key(exact).map(|(kind, overlap)| (*kind, us(*overlap)))
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn slow(began: u64, ended: u64) -> Slow {
        Slow { began: ms(began), ended: ms(ended), operation: Operation::Read, phase: 0 }
    }

    fn step(kind: StepKind, began: u64, ended: u64) -> Step {
        Step { kind, began: ms(began), ended: ms(ended) }
    }

    #[test]
    fn calls_that_overlap_are_one_stall_with_the_step_that_overlaps_most() {
        let calls = [slow(100, 150), slow(120, 260), slow(130, 140), slow(300, 310), slow(400, 450)];
        let steps = [
            step(StepKind::EngineCall, 0, 90),
            step(StepKind::Verb, 95, 320),
            step(StepKind::EngineCall, 110, 130),
            step(StepKind::Flush, 140, 250),
        ];
        let found = stalls(&calls, &steps, &["backfill".to_owned()]);
        let seen: Vec<_> =
            found.iter().map(|s| (s.began_us, s.length_us, s.longest_us, s.calls, s.step)).collect();
        assert_eq!(
            seen,
            [
                (100_000, 160_000, 140_000, 3, Some((StepKind::Flush, 110_000))),
                (300_000, 10_000, 10_000, 1, Some((StepKind::Verb, 10_000))),
                (400_000, 50_000, 50_000, 1, None),
            ]
        );
        assert_eq!(found[0].phase, "backfill");
        assert!(stalls(&[], &steps, &[]).is_empty());
    }
}
