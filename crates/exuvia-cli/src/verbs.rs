//! The verbs of an operator: rollback, resume, pause, unpause. They change the catalog only, so they need none of the
//! Rust types. A store that is open elsewhere is asked to do them through its control socket.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use exuvia::Store;
use exuvia::migration::Backfill;
use serde_json::json;

use crate::failure::Failure;
use crate::live;

/// What to do to a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Rollback { fenced: bool },
    Resume,
    Pause,
    Unpause,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Rollback { .. } => "rollback",
            Verb::Resume => "resume",
            Verb::Pause => "pause",
            Verb::Unpause => "unpause",
        })
    }
}

/// Which migration, and what the ledger is to say.
#[derive(Debug, Args)]
pub(crate) struct VerbArgs {
    /// The store's directory
    pub(crate) path: PathBuf,
    /// The migration's name
    pub(crate) migration: String,
    /// Why, for the ledger
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) why: String,
    /// By whom, for the ledger [default: the user of the environment]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The control socket of the program that has the store open [default: control.sock in the store's directory]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

impl VerbArgs {
    pub(crate) fn by(&self) -> String {
        self.by.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_default()
    }
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    pub(crate) of: VerbArgs,
    /// Refuse writes of the newer version until the migration is resumed
    #[arg(long)]
    fenced: bool,
}

impl RollbackArgs {
    pub(crate) fn verb(&self) -> Verb {
        Verb::Rollback { fenced: self.fenced }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BudgetArgs {
    #[command(flatten)]
    of: VerbArgs,
    /// The longest pause, in microseconds
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=3_600_000_000))]
    pause_us: u64,
    /// The share of one core, from 0.01 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.3, value_parser = share)]
    core_share: f64,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.01..=1.0).contains(&share) => Ok(share),
        _ => Err("give a share from 0.01 to 1".to_owned()),
    }
}

/// Does it, through the control socket if the store is open elsewhere, and answers what to print.
pub(crate) fn run(verb: Verb, args: &VerbArgs) -> Result<String, Failure> {
    let live = || {
        let mut request = request(verb, args);
        if verb == (Verb::Rollback { fenced: true }) {
            request["fenced"] = true.into();
        }
        let answer = live::ask(&args.path, args.socket.as_deref(), &request)?;
        let phase = answer["phase"].as_str().unwrap_or("in an unknown phase");
        Ok(done(verb, args, phase, answer["paused"] == true))
    };
    if args.socket.is_some() {
        return live();
    }
    match offline(verb, args) {
        Err(Failure::Locked(_)) => live(),
        other => other,
    }
}

/// Retunes a running backfill.
pub(crate) fn budget(args: &BudgetArgs) -> Result<String, Failure> {
    let mut request = request("budget", &args.of);
    request["pause_us"] = args.pause_us.into();
    request["core_share"] = args.core_share.into();
    if args.of.socket.is_none() {
        match Store::options()
            .read_only(true)
            .open(&args.of.path)
            .map_err(|e| Failure::opening(&args.of.path, e))
        {
            Err(Failure::Locked(_)) => {}
            Err(other) => return Err(other),
            Ok(store) => {
                // If only to say that there is none of this name.
                drop(store.migration(&args.of.migration)?);
                store.close()?;
                return Err(Failure::Refused(format!(
                    "{}: no program has the store open, so no backfill of migration {} runs that could be retuned; nothing \
                     was changed: the program that opens it says the budget (`Options::budget`)",
                    args.of.path.display(),
                    args.of.migration
                )));
            }
        }
    }
    let answer = live::ask(&args.of.path, args.of.socket.as_deref(), &request)?;
    if args.of.json {
        return Ok(answer.to_string());
    }
    Ok(format!(
        "migration {} may pause the store for {} us and take {} of a core, until it is closed",
        args.of.migration, args.pause_us, args.core_share
    ))
}

fn request(verb: impl fmt::Display, args: &VerbArgs) -> serde_json::Value {
    json!({ "verb": verb.to_string(), "migration": args.migration, "why": args.why, "by": args.by() })
}

fn offline(verb: Verb, args: &VerbArgs) -> Result<String, Failure> {
    let store = open(&args.path)?;
    let migration = store.migration(&args.migration)?.why(&args.why).by(args.by());
    match verb {
        Verb::Rollback { fenced: false } => migration.rollback()?,
        Verb::Rollback { fenced: true } => migration.rollback_fenced()?,
        Verb::Resume => migration.resume()?,
        Verb::Pause => migration.pause()?,
        Verb::Unpause => migration.unpause()?,
    }
    let status = migration.status()?;
    drop(migration);
    store.close()?;
    // Without background work the status says "waiting" in place of "paused".
    let paused = verb == Verb::Pause || status.backfill == Backfill::Paused;
    Ok(done(verb, args, &status.phase.to_string(), paused))
}

/// Opens a store to change its catalog: nothing in it goes on by itself meanwhile.
pub(crate) fn open(path: &Path) -> Result<Store, Failure> {
    let options = Store::options().create(false).background(false);
    options.open(path).map_err(|e| Failure::opening(path, e))
}

/// What is printed of a verb that was done.
pub(crate) fn done(verb: Verb, args: &VerbArgs, phase: &str, paused: bool) -> String {
    if args.json {
        return json!({ "migration": args.migration, "phase": phase, "paused": paused }).to_string();
    }
    let note = if paused { "; its backfill is paused" } else { "" };
    format!("{verb} of migration {} is done: it is {phase}{note}", args.migration)
}
