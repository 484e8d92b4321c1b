//! Abandoning a migration after its rollback: plan, then execution.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::measure::observe::Activity;
use crate::migration::close::close_at_from;
use crate::migration::core::Core;
use crate::migration::{Migration, Run, worker};
use crate::state::catalog::Phase;
use crate::state::change::Change;
use crate::sync::Instant;

/// What becomes of the writes made since `begin` when a migration is abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewWrites {
    /// Their old forms are folded into the base.
    Keep,
    /// They are dropped: the table is exactly as it was at `begin`.
    Discard,
}

/// What an abandon will destroy. Nothing happens until [`AbandonPlan::execute`].
#[must_use = "a plan does nothing until it is executed"]
pub struct AbandonPlan {
    pub(super) migration: Migration,
    pub(super) run: Arc<Run>,
    pub(super) writes: NewWrites,
    pub(super) destroys: Vec<String>,
}

impl std::fmt::Display for AbandonPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "abandoning migration {} will destroy, for good:", self.run.name)?;
        self.destroys.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl std::fmt::Debug for AbandonPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AbandonPlan").field("destroys", &self.destroys).finish_non_exhaustive()
    }
}

impl AbandonPlan {
    /// What will be destroyed, a line for each.
    pub fn destroys(&self) -> &[String] {
        &self.destroys
    }

    /// Closes the migration at `from`. Discarding is one commit; keeping returns when every key is folded,
    /// which goes on in the background under the budget, and over a restart of the process.
    ///
    /// # Errors
    ///
    /// A state that changed meanwhile, or a failing engine. If keeping had begun it goes on in the background, as
    /// [`Migration::wait`] says, and there is no way back.
    pub fn execute(self) -> Result<()> {
        let started = Instant::now();
        let core = self.migration.core();
        let seat = self.run.seat()?;
        let done = match self.writes {
            NewWrites::Discard => self.discard(core, started),
            NewWrites::Keep => self.begin_folding(core, started),
        };
        drop(seat);
        // Whatever phase it is in now, its worker goes on.
        worker::start(core, &self.run);
        done?;
        match self.writes {
            NewWrites::Discard => {
                core.start_sweeper();
                Ok(())
            }
            NewWrites::Keep => self.migration.wait().map(|_| ()),
        }
    }

    fn discard(&self, core: &Core, started: Instant) -> Result<()> {
        // Flush before the commit that closes a migration (O10).
        core.shared.flush()?;
        // How many writes that is nobody has counted: it would be a walk through the overlay.
        let tables = self.run.tables.len() as u64;
        let event = self.migration.event("abandon").count("tables whose new writes are discarded", tables);
        close_at_from(core, &self.run, started, event, Phase::RolledBack)
    }

    fn begin_folding(&self, core: &Core, started: Instant) -> Result<()> {
        let name = self.run.name.as_str();
        core.change(started, |catalog| {
            let entry = catalog.migration_mut(name)?;
            if entry.phase()? != Phase::RolledBack {
                return Err(Error::Conflict { subject: format!("migration {name}") });
            }
            entry.set_phase(Phase::Folding);
            let mut flips = Vec::new();
            for step in &entry.tables.clone() {
                flips.push((core.table(&step.table)?, core.route_of(catalog, &step.table)?));
            }
            Ok(Change { event: self.migration.event("fold"), flips, result: () })
        })?;
        self.run.set_activity(Activity::Fold);
        Ok(())
    }
}
