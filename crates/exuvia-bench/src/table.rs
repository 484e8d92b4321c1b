//! A report as a table for people.

use std::fmt::{self, Write};

use super::report::{Report, SubjectReport};
use super::round::PHASES;
use super::schedule::{Arrivals, Pace};
use super::stall::Stall;
use super::statistics::Estimate;

/// How many stalls of a subject are shown.
const STALLS_SHOWN: usize = 3;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        for subject in &self.subjects {
            writeln!(f)?;
            one(f, subject)?;
            if let (Pace::OfPeak { .. }, Some(rates)) = (self.settings.pace, offered(subject)) {
                writeln!(f, "  load      {rates} operations/s were due")?;
            }
        }
        writeln!(f)?;
        if self.noise.quiet {
            writeln!(
                f,
                "noise     none that was noticed: wake-ups in time, no other programs, idle phases alike"
            )?;
        } else {
            writeln!(f, "noise     THE MACHINE WAS TOO NOISY to tell small differences:")?;
            for reason in &self.noise.reasons {
                writeln!(f, "          {reason}")?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, settings) = (&self.machine, &self.settings);
        let memory =
            machine.memory_bytes.map_or_else(String::new, |bytes| format!(", {} memory", size(bytes)));
        writeln!(
            f,
            "machine   {} x {} ({}){memory}, {}",
            machine.processors, machine.processor, machine.architecture, machine.system
        )?;
        if !machine.optimized {
            writeln!(f, "          NOT OPTIMIZED: build with --release before anything is compared")?;
        }
        let pace = match settings.pace {
            Pace::Open { rate, arrivals: Arrivals::Fixed } => format!("{rate} operations/s, open loop"),
            Pace::Open { rate, arrivals: Arrivals::Poisson } => {
                format!("{rate} operations/s, open loop, Poisson")
            }
            Pace::OfPeak { percent, arrivals } => {
                let arrivals = if arrivals == Arrivals::Poisson { ", Poisson" } else { "" };
                format!("{percent}% of each subject's own peak, open loop{arrivals}")
            }
            Pace::Closed => "CLOSED loop: rates count, latencies leave out who would have waited".to_owned(),
        };
        let keys = format!("{:?}", settings.mix.keys).to_lowercase();
        writeln!(
            f,
            "load      {pace}, {} threads, mix {}, keys {keys}",
            settings.threads, settings.mix.name
        )?;
        writeln!(
            f,
            "records   {} of {} bytes, version 1 to {}, seed {}",
            settings.records, settings.record_bytes, settings.to, settings.seed
        )?;
        writeln!(f, "latencies from when an operation was due; medians of rounds [least, greatest]")
    }
}

fn one(f: &mut fmt::Formatter<'_>, subject: &SubjectReport) -> fmt::Result {
    writeln!(f, "{}  ({}; {} rounds)", subject.name, subject.about, subject.rounds.len())?;
    writeln!(f, "  {:<9} {:>8} {:>22} {:>22} {:>22} {:>22}", "phase", "op/s", "p50", "p99", "p99.9", "max")?;
    for phase in PHASES.iter().skip(1) {
        let Some(p50) = subject.latency_ms(phase, 0.5) else { continue };
        let rate = super::statistics::median(&subject.figures(phase, super::round::PhaseResult::rate));
        write!(f, "  {phase:<9} {rate:>8.0} {:>22}", spread(&p50))?;
        for q in [0.99, 0.999, 1.0] {
            let text = subject.latency_ms(phase, q).as_ref().map(spread).unwrap_or_default();
            write!(f, " {text:>22}")?;
        }
        writeln!(f)?;
    }
    let sure = |name: &str| {
        let (low, high) = subject.summary.get(name)?.p99_ms.interval?;
        Some(format!("{name} {} to {} ms", ms(low), ms(high)))
    };
    if let (Some(idle), Some(backfill)) = (sure("idle"), sure("backfill")) {
        writeln!(f, "  95%       of the p99's median: {idle}, {backfill}")?;
    }
    let rate = subject.backfill_records_per_s();
    writeln!(f, "  backfill  {:.0} records/s [{:.0}, {:.0}]", rate.median, rate.low, rate.high)?;
    let mut verbs = String::new();
    for verb in ["begin", "rollback", "resume", "contract"] {
        match (subject.verb_ms(verb), subject.cannot(verb)) {
            (Some(took), _) => write!(verbs, "{verb} {}, ", spread(&took))?,
            (None, Some(why)) => write!(verbs, "{verb}: cannot ({why}), ")?,
            (None, None) => {}
        }
    }
    writeln!(f, "  verbs     {}", verbs.trim_end_matches(", "))?;
    stalls(f, subject)?;
    let bytes: Vec<String> = (0..3)
        .map(|n| {
            let at: Vec<f64> =
                subject.rounds.iter().filter_map(|r| r.bytes.get(n)).map(|b| *b as f64).collect();
            size(super::statistics::median(&at) as u64)
        })
        .collect();
    writeln!(f, "  disk      {} before, backfill, end", bytes.join(", "))?;
    checks(f, subject)
}

/// The rates of the rounds, where each subject has its own.
fn offered(subject: &SubjectReport) -> Option<String> {
    let rates: Vec<u64> = subject.rounds.iter().map(|round| round.rate).collect::<Option<_>>()?;
    let (least, greatest) = (rates.iter().min()?, rates.iter().max()?);
    Some(if least == greatest { least.to_string() } else { format!("{least} to {greatest}") })
}

fn stalls(f: &mut fmt::Formatter<'_>, subject: &SubjectReport) -> fmt::Result {
    let sum = |count: fn(&super::round::Stalls) -> u64| {
        subject.rounds.iter().map(|r| count(&r.stalls)).sum::<u64>()
    };
    let from = subject.rounds.first().map_or(0, |round| round.stalls.from_us);
    let (migration, own) = (sum(|s| s.migration), sum(|s| s.own));
    writeln!(
        f,
        "  stalls    from {} ms: {migration} with the migration at work, {own} with nothing of it in flight",
        ms(from as f64 / 1e3)
    )?;
    let mut longest: Vec<&Stall> = subject.rounds.iter().flat_map(|round| &round.stalls.longest).collect();
    longest.sort_by_key(|stall| std::cmp::Reverse(stall.longest_us));
    for stall in longest.into_iter().take(STALLS_SHOWN) {
        let step = match stall.step {
            Some((kind, us)) => format!("{kind} for {} ms of it", ms(us as f64 / 1e3)),
            None => "nothing of the migration in flight".to_owned(),
        };
        writeln!(
            f,
            "            {} ms, {} in {} at {:.1} s, {} calls: {step}",
            ms(stall.longest_us as f64 / 1e3),
            stall.operation,
            stall.phase,
            stall.began_us as f64 / 1e6,
            stall.calls
        )?;
    }
    Ok(())
}

fn checks(f: &mut fmt::Formatter<'_>, subject: &SubjectReport) -> fmt::Result {
    let sum = |count: fn(&super::round::Checks) -> u64| {
        subject.rounds.iter().map(|r| count(&r.checks)).sum::<u64>()
    };
    let (compared, checked) = (sum(|c| c.compared), sum(|c| c.checked));
    if subject.verified() {
        write!(f, "  verified  {compared} records at the end, {checked} reads under load: all right")?;
    } else {
        let (wrong, left) = (sum(|c| c.wrong), sum(|c| c.left_behind.unwrap_or(0)));
        write!(
            f,
            "  verified  NO: {wrong} WRONG, {left} LEFT BEHIND, of {compared} at the end and {checked} reads"
        )?;
    }
    let (closed, undone) = (sum(|c| c.closed), sum(|c| c.undone));
    if closed + undone > 0 {
        write!(f, "; {closed} tries at a closed subject, {undone} operations not done")?;
    }
    writeln!(f)?;
    for difference in subject.rounds.iter().flat_map(|round| &round.checks.differences).take(STALLS_SHOWN) {
        writeln!(f, "            {difference}")?;
    }
    Ok(())
}

fn spread(estimate: &Estimate) -> String {
    if estimate.low == estimate.high {
        return format!("{} ms", ms(estimate.median));
    }
    format!("{} ms [{}, {}]", ms(estimate.median), ms(estimate.low), ms(estimate.high))
}

/// Milliseconds to three digits.
pub(crate) fn ms(ms: f64) -> String {
    match ms {
        ms if ms < 0.9995 => format!("{ms:.3}"),
        ms if ms < 9.995 => format!("{ms:.2}"),
        ms if ms < 99.95 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    }
}

pub(crate) fn size(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 20) {
        mib if mib < 1024.0 => format!("{mib:.1} MiB"),
        mib => format!("{:.2} GiB", mib / 1024.0),
    }
}
