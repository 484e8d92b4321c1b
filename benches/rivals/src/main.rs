//! The pause benchmark beside other stores: the same records, load and durability as far as they have it, each tuned as its own
//! documentation advises. See docs/performance.md of the repository.
//!
//! `cargo run --release -- --json run.json` measures all of them; `--subject NAME … --append` some at a time. SQLite is compiled
//! from its sources, which needs a C compiler.

mod fjall_hand;
mod native;
mod offers;
mod redb_batches;
mod sqlite;
mod ticker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use exuvia::Store;
use exuvia_bench::subjects::{BareSledOptions, Writes, bare_sled, exuvia_fjall, exuvia_sled};
use exuvia_bench::{Arrivals, Contender, Failure, Mix, Outputs, Pace, Report, Settings};

#[derive(Debug, Parser)]
#[command(about = "Measure how long reads and writes wait while records are migrated, in several stores")]
struct Cli {
    /// What is measured, by name; may be given several times [default: all; --list names them]
    #[arg(long = "subject", value_name = "NAME")]
    subjects: Vec<String>,
    /// Name all subjects, and measure nothing
    #[arg(long)]
    list: bool,
    /// Records
    #[arg(long, default_value_t = 300_000)]
    records: u64,
    /// Encoded size of a record
    #[arg(long, default_value_t = 150)]
    record_bytes: usize,
    /// Operations per second
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// Operations per second, in percent of each subject's own peak, which is found first
    #[arg(long, conflicts_with_all = ["rate", "closed"])]
    of_peak: Option<u64>,
    /// Closed loop: the peak throughput
    #[arg(long)]
    closed: bool,
    /// Threads
    #[arg(long, default_value_t = 4)]
    threads: u64,
    /// mixed, a to f (YCSB), or shares
    #[arg(long, default_value = "mixed")]
    mix: Mix,
    /// Rounds
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Where everything random comes from; round n adds n
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Length of the phases without an end of their own, in seconds
    #[arg(long, default_value_t = 5.0)]
    phase_seconds: f64,
    /// The longest that a backfill is waited for, in seconds
    #[arg(long, default_value_t = 180)]
    limit_seconds: u64,
    /// Records per second of the loops by hand that can be held back; 0: no limit
    #[arg(long, default_value_t = 20_000)]
    bare_rate: u64,
    /// Write the JSON document
    #[arg(long)]
    json: Option<PathBuf>,
    /// Add to the JSON document that is there
    #[arg(long, requires = "json")]
    append: bool,
    /// Write pictures into a directory
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Write HdrHistogram's interval logs into a directory
    #[arg(long)]
    hlog: Option<PathBuf>,
    /// Measure nothing: print the tables of a JSON document, or of several as one
    #[arg(long, num_args = 1..)]
    show: Vec<PathBuf>,
    /// Where the stores are made, and removed again
    #[arg(long)]
    path: Option<PathBuf>,
}

impl Cli {
    fn settings(&self) -> Settings {
        let pace = match (self.of_peak, self.closed) {
            (Some(percent), _) => Pace::OfPeak { percent, arrivals: Arrivals::Fixed },
            (None, true) => Pace::Closed,
            (None, false) => Pace::Open { rate: self.rate, arrivals: Arrivals::Fixed },
        };
        Settings {
            records: self.records,
            record_bytes: self.record_bytes,
            pace,
            threads: self.threads,
            mix: self.mix.clone(),
            seed: self.seed,
            phase: Duration::try_from_secs_f64(self.phase_seconds).unwrap_or(Duration::from_secs(5)),
            limit: Duration::from_secs(self.limit_seconds),
            ..Settings::default()
        }
    }

    fn contenders(&self) -> Vec<Contender> {
        let within = self.path.clone().unwrap_or_else(std::env::temp_dir);
        let (bytes, rate) = (self.record_bytes, (self.bare_rate > 0).then_some(self.bare_rate));
        let options = Store::options();
        let sled = |writes, records_per_s| {
            let options = BareSledOptions { writes, records_per_s, ..BareSledOptions::default() };
            bare_sled(options, within.clone(), bytes)
        };
        vec![
            exuvia_sled(&options, within.clone(), bytes),
            exuvia_fjall(&options, within.clone(), bytes),
            sled(Writes::Single, rate),
            sled(Writes::Batch(64), rate),
            sled(Writes::Batch(1024), rate),
            fjall_hand::fjall_loop(rate, within.clone(), bytes),
            fjall_hand::fjall_lazy(within.clone(), bytes),
            sqlite::sqlite(None, within.clone(), bytes),
            sqlite::sqlite(Some(100), within.clone(), bytes),
            sqlite::sqlite(Some(1_000), within.clone(), bytes),
            sqlite::sqlite(Some(10_000), within.clone(), bytes),
            redb_batches::redb(1_000, within.clone(), bytes),
            native::native_db(within.clone(), bytes),
        ]
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("exuvia-rivals: {failure}");
            ExitCode::from(4)
        }
    }
}

/// Answers whether every subject did all of its work.
fn run(cli: &Cli) -> Result<bool, Failure> {
    let mut contenders = cli.contenders();
    if cli.list {
        contenders.iter().for_each(|contender| println!("{}", contender.name()));
        return Ok(true);
    }
    if let Some(report) = Report::read_all(&cli.show)? {
        println!("{report}\n{}", offers::table(&report));
        if let Some(directory) = &cli.svg {
            exuvia_bench::pictures(&report, directory)?;
        }
        return Ok(report.verified());
    }
    if let Some(unknown) = cli.subjects.iter().find(|name| !contenders.iter().any(|c| c.name() == *name)) {
        return Err(Failure::Setting(format!("there is no subject {unknown}; --list names them")));
    }
    if !cli.subjects.is_empty() {
        contenders.retain(|contender| cli.subjects.iter().any(|name| name == contender.name()));
    }
    let report = exuvia_bench::run(&contenders, &cli.settings(), cli.rounds, &|at| {
        eprintln!("round {}: {}, {}", at.round + 1, at.subject, at.stage);
    })?;
    let outputs =
        Outputs { json: cli.json.clone(), append: cli.append, svg: cli.svg.clone(), hlog: cli.hlog.clone() };
    let report = outputs.write(report)?;
    println!("{report}\n{}", offers::table(&report));
    Ok(report.verified())
}
