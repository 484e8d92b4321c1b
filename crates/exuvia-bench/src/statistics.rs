//! Medians over rounds, their spread, and how sure they are. Pure.

use serde::{Deserialize, Serialize};

use super::random::Random;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;

/// A figure over several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The median of the rounds.
    pub median: f64,
    /// The least of them.
    pub low: f64,
    /// The greatest of them.
    pub high: f64,
    /// The 95% interval of the median, by bootstrap; with fewer than three rounds it says nothing and is `None`.
    pub interval: Option<(f64, f64)>,
}

/// The median of some figures: of an even number, the mean of the two in the middle. Zero if there is none.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |n: usize| sorted.get(n).copied().unwrap_or_default();
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => at(n / 2),
        n => f64::midpoint(at(n / 2 - 1), at(n / 2)),
    }
}

/// Median, spread, and the percentile bootstrap's 95% interval of the median (Efron, *Bootstrap methods: another look at
/// the jackknife*, 1979). The same figures and seed give the same interval.
pub fn estimate(figures: &[f64], seed: u64) -> Estimate {
    let fold = |start: f64, pick: fn(f64, f64) -> f64| figures.iter().copied().fold(start, pick);
    let interval = (figures.len() >= 3).then(|| {
        let mut random = Random::new(seed, figures.len() as u64, 0);
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let draw = |_| {
                    let drawn = random.below(figures.len() as u64) as usize;
                    figures.get(drawn).copied().unwrap_or_default()
                };
                median(&(0..figures.len()).map(draw).collect::<Vec<_>>())
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at =
            |share: f64| medians.get((share * (RESAMPLES - 1) as f64) as usize).copied().unwrap_or_default();
        (at(0.025), at(0.975))
    });
    if figures.is_empty() {
        return Estimate { median: 0.0, low: 0.0, high: 0.0, interval: None };
    }
    Estimate {
        median: median(figures),
        low: fold(f64::INFINITY, f64::min),
        high: fold(f64::NEG_INFINITY, f64::max),
        interval,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_spread_and_intervals() {
        assert_eq!((median(&[]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])), (0.0, 2.0, 2.5));
        let few = estimate(&[2.0, 1.0], 1);
        assert_eq!((few.median, few.low, few.high, few.interval), (1.5, 1.0, 2.0, None));
        assert_eq!(estimate(&[5.0; 7], 1).interval, Some((5.0, 5.0)));
    }

    #[test]
    fn the_interval_covers_the_true_median_about_as_often_as_it_says() {
        let mut random = Random::new(9, 9, 9);
        let trials = 400;
        let mut covered = 0;
        for trial in 0..trials {
            let figures: Vec<f64> = (0..15).map(|_| random.exponential()).collect();
            let (low, high) = estimate(&figures, trial).interval.expect("15 rounds");
            covered += u32::from((low..=high).contains(&std::f64::consts::LN_2));
        }
        let share = f64::from(covered) / trials as f64;
        assert!((0.88..=0.99).contains(&share), "the interval covers the median in {share} of all trials");
    }
}
