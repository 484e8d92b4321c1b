//! What all campaigns have done so far, in one file of JSON: for each campaign (by its name, what it runs on, and its seed)
//! the totals and the number of the next case. It is written whole after each case, under another name and renamed, so
//! that a campaign may be stopped by any means at any time and goes on where it was. Several may run at once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Totals {
    /// The number of the next case.
    pub next: u64,
    pub passed: u64,
    pub failed: u64,
    pub seconds: f64,
    /// What was counted besides, by name.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
    #[serde(default)]
    pub failures: Vec<Failure>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub case: u64,
    pub what: String,
    /// The command that makes it again.
    pub again: String,
    /// Where its store was left.
    pub kept: Option<PathBuf>,
}

pub type All = BTreeMap<String, Totals>;

#[derive(Clone)]
pub struct State {
    path: PathBuf,
}

impl State {
    pub fn at(path: PathBuf) -> Self {
        State { path }
    }

    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// # Errors
    /// A file that is there and cannot be read.
    pub fn read(&self) -> Result<All, String> {
        let why = |e: &dyn std::fmt::Display| format!("{}: {e}", self.path.display());
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| why(&e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(All::new()),
            Err(e) => Err(why(&e)),
        }
    }

    /// # Errors
    /// As [`State::read`].
    pub fn totals(&self, campaign: &str) -> Result<Totals, String> {
        Ok(self.read()?.remove(campaign).unwrap_or_default())
    }

    /// Adds to a campaign's totals.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn add(&self, campaign: &str, change: impl FnOnce(&mut Totals)) -> Result<(), String> {
        let why = |e: std::io::Error| format!("{}: {e}", self.path.display());
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory).map_err(why)?;
        }
        // Other campaigns write to the same file.
        let lock = File::create(self.path.with_extension("lock")).map_err(why)?;
        lock.lock().map_err(why)?;
        let mut all = self.read()?;
        change(all.entry(campaign.to_owned()).or_default());
        let bytes = serde_json::to_vec_pretty(&all).map_err(|e| e.to_string())?;
        let draft = self.path.with_extension("draft");
        fs::write(&draft, bytes).map_err(why)?;
        fs::rename(&draft, &self.path).map_err(why)
    }

    /// Prints the totals of every campaign.
    ///
    /// # Errors
    /// As [`State::read`].
    pub fn report(&self) -> Result<(), String> {
        let all = self.read()?;
        println!("totals in {}", self.path.display());
        for (campaign, totals) in &all {
            totals.print(campaign);
        }
        if all.is_empty() {
            println!("no campaign has run yet");
        }
        Ok(())
    }
}

impl Totals {
    pub fn print(&self, campaign: &str) {
        println!(
            "{campaign}: {} passed, {} failed, next case {}, {:.0} s",
            self.passed, self.failed, self.next, self.seconds
        );
        for (name, count) in &self.counts {
            println!("    {count:>9}  {name}");
        }
        for failure in &self.failures {
            println!("    FAILED case {}: {}", failure.case, failure.what);
            println!("      again: {}", failure.again);
            if let Some(kept) = &failure.kept {
                println!("      kept:  {}", kept.display());
            }
        }
    }
}
