//! The `exuvia` command: a demo on real records, and a look into any store.

mod backup;
mod bench;
mod copy;
mod data;
mod decimal;
mod demo;
mod directory;
mod failure;
#[cfg(test)]
mod fake;
mod import;
mod inspect;
mod latency;
#[cfg(test)]
mod laws;
mod live;
mod load;
#[cfg(test)]
mod load_tests;
mod model;
mod progress;
mod records;
mod report;
mod rows;
mod shell;
mod source;
mod store;
mod subject;
mod types;
mod verbs;
mod verify;
mod worker;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use exuvia::engine::EngineKind;

use crate::failure::Failure;
use crate::load::Pace;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and everything that was verified is as it has to be
  1  verification failed: a record differs, a checksum is wrong, the ledger's chain is broken; a salvage lost something
  2  wrong usage
  3  a file or directory that was named cannot be used
  4  the store, or the system below it, failed
  5  refused: it does not fit the state that the store is in; nothing was changed
  6  there is no record under the key";

/// An embedded key-value store whose records migrate online.
#[derive(Debug, Parser)]
#[command(name = "exuvia", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Migrate real airports twice under traffic, roll back and forward, and verify every record
    #[command(after_help = EXIT_CODES)]
    Demo(DemoArgs),
    /// Measure how long reads and writes wait while records are migrated, beside the same by hand
    #[command(after_help = EXIT_CODES)]
    Bench(bench::BenchArgs),
    /// Show tables, versions, migrations and sizes of a store
    #[command(after_help = EXIT_CODES)]
    Status(StoreArgs),
    /// Check every record's checksum and the ledger's chain
    #[command(after_help = EXIT_CODES)]
    Verify(StoreArgs),
    /// Show every state change of a store
    #[command(after_help = EXIT_CODES)]
    Ledger(StoreArgs),
    /// Print the record under a key, as JSON
    #[command(after_help = EXIT_CODES)]
    Get(records::GetArgs),
    /// Print the records of a table, as JSON lines
    #[command(after_help = EXIT_CODES)]
    Scan(records::ScanArgs),
    /// Print what each table consists of: type of keys, version, codec, shape
    #[command(after_help = EXIT_CODES)]
    Tables(records::PathArgs),
    /// Count the records of each table by the version that they are written in
    #[command(after_help = EXIT_CODES)]
    Inventory(records::PathArgs),
    /// Print tables with all records as JSON lines, for `import`
    #[command(after_help = EXIT_CODES)]
    Export(records::ExportArgs),
    /// Take what `export` printed into tables that are absent or empty
    #[command(after_help = EXIT_CODES)]
    Import(import::ImportArgs),
    /// Print completions for a shell
    Completions(shell::CompletionsArgs),
    /// Print a manual page, in roff
    Man(shell::ManArgs),
    /// Take a migration back: the older version is active again, and every record can be read in it
    #[command(after_help = EXIT_CODES)]
    Rollback(verbs::RollbackArgs),
    /// Take a rolled-back migration forward again
    #[command(after_help = EXIT_CODES)]
    Resume(verbs::VerbArgs),
    /// Stop a migration's backfill, also over restarts of the program
    #[command(after_help = EXIT_CODES)]
    Pause(verbs::VerbArgs),
    /// Let a paused backfill go on, at once or when the program is started
    #[command(after_help = EXIT_CODES)]
    Unpause(verbs::VerbArgs),
    /// Copy a store, verified, to a new directory and perhaps another engine; a copy is compact
    #[command(after_help = EXIT_CODES)]
    Copy(copy::CopyArgs),
    /// Make the files of a store that no program has open anew, from its live records, verified
    #[command(after_help = EXIT_CODES)]
    Compact(copy::CompactArgs),
    /// Make a backup, verified and with checksums, also of a store that a program has open; or check one
    #[command(after_help = EXIT_CODES)]
    Backup(backup::BackupArgs),
    /// Make a store of a backup, which stays what it is
    #[command(after_help = EXIT_CODES)]
    Restore(backup::RestoreArgs),
    /// Copy what can be read of a damaged store to a new one, and list what cannot
    #[command(after_help = EXIT_CODES)]
    Salvage(backup::SalvageArgs),
    /// Change what the backfill of a running store may take, until it is closed
    #[command(after_help = EXIT_CODES)]
    Budget(verbs::BudgetArgs),
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Airports to load instead of those that come with the command: JSON lines or CSV, gzip or not
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Distinct records; real ones are varied if there are fewer [default: all there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    records: Option<u64>,
    /// Encoded size of a record; shorter records are filled up to it
    #[arg(long, value_name = "BYTES", default_value_t = 150, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    record_bytes: u32,
    /// Foreground operations per second
    #[arg(long, value_name = "OPS", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
    /// Foreground threads
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Least length of each phase, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = phase_seconds)]
    phase_seconds: f64,
    /// Memory that the engine caches records in, in MiB; migrations need room for two forms of each
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(16..=1_048_576))]
    cache_mib: u64,
    /// The engine that keeps the store
    #[arg(long, value_name = "ENGINE", default_value = "sled", value_parser = engine)]
    engine: EngineKind,
    /// Where everything random comes from: the same seed varies records in the same way
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// A new directory for the store, which is kept [default: a temporary one, which is removed]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// The store's directory
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The control socket of the program that has the store open [default: control.sock in the store's directory]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

fn engine(text: &str) -> Result<EngineKind, String> {
    EngineKind::from_name(text).ok_or_else(|| "there are sled and fjall".to_owned())
}

fn phase_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds from 0.05 to 3600".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nothing can be done about a standard error that is gone; the exit code still tells.
            let _ = writeln!(std::io::stderr(), "exuvia: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => run_demo(args),
        Command::Bench(args) => run_bench(&args),
        Command::Status(args) => look(&args, inspect::Subject::Status),
        Command::Verify(args) => look(&args, inspect::Subject::Verify),
        Command::Ledger(args) => look(&args, inspect::Subject::Ledger),
        Command::Get(args) => records::get(&args),
        Command::Scan(args) => records::scan(&args),
        Command::Tables(args) => records::tables(&args),
        Command::Inventory(args) => records::inventory(&args),
        Command::Export(args) => records::export(&args),
        Command::Import(args) => print(&import::run(&args)?),
        Command::Completions(args) => print(&shell::completions(&args, Cli::command())?),
        Command::Man(args) => print(&shell::man(&args, Cli::command())?),
        Command::Rollback(args) => print(&verbs::run(args.verb(), &args.of)?),
        Command::Resume(args) => print(&verbs::run(verbs::Verb::Resume, &args)?),
        Command::Pause(args) => print(&verbs::run(verbs::Verb::Pause, &args)?),
        Command::Unpause(args) => print(&verbs::run(verbs::Verb::Unpause, &args)?),
        Command::Copy(args) => print(&copy::run(&args)?),
        Command::Compact(args) => print(&copy::compact(&args)?),
        Command::Budget(args) => print(&verbs::budget(&args)?),
        Command::Backup(args) => answer(backup::backup(&args)?),
        Command::Restore(args) => print(&backup::restore(&args)?),
        Command::Salvage(args) => answer(backup::salvage(&args)?),
    }
}

fn answer(answer: inspect::Answer) -> Result<(), Failure> {
    if !answer.text.is_empty() {
        print(&answer.text)?;
    }
    answer.failure.map_or(Ok(()), Err)
}

fn look(args: &StoreArgs, subject: inspect::Subject) -> Result<(), Failure> {
    let answer = if args.socket.is_some() {
        inspect::live(&args.path, args.socket.as_deref(), subject, args.json)?
    } else {
        match inspect::inspect(&args.path, subject, args.json) {
            Err(Failure::Locked(path)) => inspect::live(&path, None, subject, args.json)?,
            other => other?,
        }
    };
    self::answer(answer)
}

fn run_demo(args: DemoArgs) -> Result<(), Failure> {
    let summary = demo::run(&demo::Options {
        data: args.data,
        records: args.records,
        record_bytes: args.record_bytes as usize,
        pace: Pace { rate: args.rate, threads: usize::from(args.threads) },
        path: args.path,
        cache_bytes: args.cache_mib << 20,
        engine: args.engine,
        seed: args.seed,
        phase: Duration::from_secs_f64(args.phase_seconds),
    })?;
    if args.json {
        let json = serde_json::to_string(&summary);
        print(&json.map_err(|e| Failure::Store(format!("the summary cannot be written as JSON: {e}")))?)?;
    } else {
        print(&summary.to_string())?;
    }
    if summary.verified {
        return Ok(());
    }
    let first = summary.differences.first().map_or("not every record was compared", String::as_str);
    Err(Failure::Verification(format!("{} differences from the model; the first: {first}", summary.wrong)))
}

fn run_bench(args: &bench::BenchArgs) -> Result<(), Failure> {
    let report = bench::run(args)?;
    print(report.to_string().trim_end())?;
    if report.verified() {
        return Ok(());
    }
    Err(Failure::Verification("a subject did not do all of its work; its table says what".to_owned()))
}

/// Prints a result. A reader who has seen enough and closed the pipe is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Store(format!("standard output cannot be written: {e}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(
            parse("exuvia demo --records 5 --rate 100 --json --path x --record-bytes 300 --data f").is_ok()
        );
        assert!(parse("exuvia bench --quick --mix ycsb-a --subject bare-sled --json x --append").is_ok());
        assert!(parse("exuvia bench --mix read=1,fly=2").is_err());
        assert!(parse("exuvia ledger x").is_ok() && parse("exuvia status x --json").is_ok());
        for line in
            ["exuvia", "exuvia demo --records 0", "exuvia demo --rate x", "exuvia verify", "exuvia wat"]
        {
            assert!(parse(line).is_err_and(|e| e.exit_code() == 2), "{line}");
        }
    }
}
