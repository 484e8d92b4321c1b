//! `exuvia bench`: the pause benchmark on Exuvia and on the loop by hand that it is compared with.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use exuvia::{Budget, Options, Store};
use exuvia_bench::subjects::{self, BareSledOptions, Writes};
use exuvia_bench::{self as bench, Arrivals, Contender, Keys, Mix, Outputs, Pace, Report, Settings};

use crate::failure::Failure;
use crate::progress::Progress;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// Exuvia on sled
    ExuviaSled,
    /// Exuvia on fjall
    ExuviaFjall,
    /// sled by hand: a loop over all keys, one compare-and-swap each
    BareSled,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What is measured; may be given several times [default: all]
    #[arg(long = "subject", value_name = "NAME", value_enum)]
    subjects: Vec<Which>,
    /// A small case that takes less than a minute on a quiet machine: 10 000 records, short phases, one round
    #[arg(long)]
    quick: bool,
    /// Records
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    records: u64,
    /// Encoded size of a record
    #[arg(long, value_name = "BYTES", default_value_t = 150, value_parser = clap::value_parser!(u32).range(32..=40_000))]
    record_bytes: u32,
    /// Operations per second, of all threads together
    #[arg(long, value_name = "OPS", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
    /// Operations per second, in percent of each subject's own peak, which is found first
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..=100), conflicts_with_all = ["rate", "closed"])]
    of_peak: Option<u64>,
    /// Operations arrive as from callers who know nothing of each other, and not at equal distances
    #[arg(long)]
    poisson: bool,
    /// Closed loop, for the peak throughput: every thread starts its next operation when the last one is done
    #[arg(long, conflicts_with_all = ["poisson", "rate"])]
    closed: bool,
    /// Threads that make operations
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// mixed, a to f (YCSB), or shares such as read=90,update=9,scan=1 (of read, update, insert, remove, scan, modify)
    #[arg(long, value_name = "MIX", default_value = "mixed")]
    mix: Mix,
    /// How keys are chosen: uniform, zipfian or latest [default: as the mix has it]
    #[arg(long, value_name = "KEYS", value_parser = keys)]
    keys: Option<Keys>,
    /// Rounds; in each every subject has its turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Where everything random comes from; round n adds n to it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Length of the phases that have no end of their own, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    phase_seconds: f64,
    /// Load before the first phase, in seconds, which counts for nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    warm_up_seconds: f64,
    /// Memory that the engine caches records in, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(16..=1_048_576))]
    cache_mib: u64,
    /// Longest pause of Exuvia's backfill and, after a colon, its share of a core (such as 0.5:0.3, or 5:1); several are several
    /// subjects [default: the store's own]
    #[arg(long = "budget", value_name = "MS[:SHARE]", value_parser = budget)]
    budgets: Vec<(Budget, String)>,
    /// Records that the loop by hand rewrites in a second, at most; 0: as many as it can; several are several subjects [default:
    /// 20000]
    #[arg(long = "bare-rate", value_name = "N")]
    bare_rates: Vec<u64>,
    /// The longest that a backfill, or a sweep, is waited for, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = seconds)]
    limit_seconds: f64,
    /// Write the JSON document
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Add to the JSON document that is there, so that a long measurement can be made in pieces
    #[arg(long, requires = "json")]
    append: bool,
    /// Write pictures into a directory
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Write HdrHistogram's interval logs into a directory
    #[arg(long, value_name = "DIR")]
    hlog: Option<PathBuf>,
    /// Measure nothing: print the table, and draw the pictures, of a JSON document, or of several as one
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["json", "hlog"])]
    show: Vec<PathBuf>,
    /// Where the stores are made, and removed again [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

fn keys(text: &str) -> Result<Keys, String> {
    match text {
        "uniform" => Ok(Keys::Uniform),
        "zipfian" => Ok(Keys::Zipfian),
        "latest" => Ok(Keys::Latest),
        _ => Err("there are uniform, zipfian and latest".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds from 0.05 to 3600".to_owned()),
    }
}

/// A budget, and the words that it was given in.
fn budget(text: &str) -> Result<(Budget, String), String> {
    let wrong = || "give milliseconds from 0.01 to 10000, and a share of a core from 0.01 to 1".to_owned();
    let number = |text: &str, range: std::ops::RangeInclusive<f64>| {
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(wrong)
    };
    let (pause, share) = text.split_once(':').map_or((text, None), |(pause, share)| (pause, Some(share)));
    let pause = Duration::from_secs_f64(number(pause, 0.01..=10_000.0)? / 1e3);
    let mut budget = Budget::default().pause_max(pause);
    if let Some(share) = share {
        budget = budget.core_share(number(share, 0.01..=1.0)?);
    }
    Ok((budget, text.to_owned()))
}

impl From<bench::Failure> for Failure {
    fn from(failure: bench::Failure) -> Self {
        match failure {
            bench::Failure::File { path, reason } => Failure::Input { path, line: None, reason },
            bench::Failure::Setting(reason) => Failure::Usage(reason),
            other => Failure::Store(other.to_string()),
        }
    }
}

impl BenchArgs {
    fn settings(&self) -> Settings {
        let arrivals = if self.poisson { Arrivals::Poisson } else { Arrivals::Fixed };
        let pace = match self.of_peak {
            Some(percent) => Pace::OfPeak { percent, arrivals },
            None if self.closed => Pace::Closed,
            None => Pace::Open { rate: self.rate, arrivals },
        };
        let mix = match self.keys {
            Some(keys) => self.mix.clone().with_keys(keys),
            None => self.mix.clone(),
        };
        let settings = Settings {
            records: self.records,
            record_bytes: self.record_bytes as usize,
            pace,
            threads: u64::from(self.threads),
            mix,
            seed: self.seed,
            warm_up: Duration::from_secs_f64(self.warm_up_seconds),
            phase: Duration::from_secs_f64(self.phase_seconds),
            limit: Duration::from_secs_f64(self.limit_seconds),
            ..Settings::default()
        };
        if !self.quick {
            return settings;
        }
        let (warm_up, phase) = (Duration::from_millis(500), Duration::from_secs(1));
        Settings { records: self.records.min(10_000), warm_up, phase, ..settings }
    }

    fn contenders(&self) -> Vec<Contender> {
        let all = [Which::ExuviaSled, Which::BareSled, Which::ExuviaFjall];
        let which = if self.subjects.is_empty() { &all[..] } else { &self.subjects };
        let (bytes, cache_bytes) = (self.record_bytes as usize, self.cache_mib << 20);
        let within = self.path.clone().unwrap_or_else(std::env::temp_dir);
        let options = Store::options().cache_bytes(cache_bytes);
        let by_hand = |rate: u64| BareSledOptions {
            cache_bytes,
            records_per_s: (rate > 0).then_some(rate),
            writes: Writes::Single,
            ..BareSledOptions::default()
        };
        // What was given is in the name: rounds of another budget, or another rate, are not a subject's own.
        let ours = |subject: fn(&Options, PathBuf, usize) -> Contender| -> Vec<Contender> {
            if self.budgets.is_empty() {
                return vec![subject(&options, within.clone(), bytes)];
            }
            let each = self.budgets.iter().map(|(budget, words)| {
                let contender = subject(&options.clone().budget(*budget), within.clone(), bytes);
                let name = format!("{} {words}", contender.name());
                contender.named(name)
            });
            each.collect()
        };
        let bare = |rate: u64| subjects::bare_sled(by_hand(rate), within.clone(), bytes);
        let named = |rate: &u64| {
            let contender = bare(*rate);
            let name = format!("{} {rate}/s", contender.name());
            contender.named(name)
        };
        let contenders = |which: &Which| match which {
            Which::ExuviaSled => ours(subjects::exuvia_sled),
            Which::ExuviaFjall => ours(subjects::exuvia_fjall),
            Which::BareSled if self.bare_rates.is_empty() => vec![bare(20_000)],
            Which::BareSled => self.bare_rates.iter().map(named).collect(),
        };
        which.iter().flat_map(contenders).collect()
    }
}

/// Measures, writes what was asked for, and answers the table.
pub(crate) fn run(args: &BenchArgs) -> Result<Report, Failure> {
    if let Some(report) = Report::read_all(&args.show)? {
        if let Some(directory) = &args.svg {
            bench::pictures(&report, directory)?;
        }
        return Ok(report);
    }
    let (settings, contenders) = (args.settings(), args.contenders());
    let rounds = if args.quick { 1 } else { args.rounds };
    let progress = std::cell::RefCell::new(Progress::new());
    let report = bench::run(&contenders, &settings, rounds, &|at| {
        let mut progress = progress.borrow_mut();
        if at.stage == "load" {
            progress.say(&format!("round {} of {rounds}: {}", at.round + 1, at.subject));
        }
        progress.start(at.stage, 0);
    })?;
    progress.borrow_mut().end();
    let outputs = Outputs {
        json: args.json.clone(),
        append: args.append,
        svg: args.svg.clone(),
        hlog: args.hlog.clone(),
    };
    Ok(outputs.write(report)?)
}
