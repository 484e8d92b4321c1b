//! The verbs of an operator, on a store whose program is not running: rollback, resume, pause, unpause. They change
//! the catalog only, so they need none of the Rust types.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use exuvia::{Backfill, Store};
use serde_json::json;

use crate::failure::Failure;

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

/// Does it and answers what to print.
pub(crate) fn run(verb: Verb, args: &VerbArgs) -> Result<String, Failure> {
    offline(verb, args)
}

fn offline(verb: Verb, args: &VerbArgs) -> Result<String, Failure> {
    let store = open(&args.path)?;
    let migration = store.open_migration(&args.migration)?.why(&args.why).by(args.by());
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
