//! The end of a migration at `from`: by an abandon, or when all is folded.

use crate::error::{Error, Result};
use crate::measure::observe::Activity;
use crate::migration::core::Core;
use crate::migration::run::Run;
use crate::state::catalog::Phase;
use crate::state::change::Change;
use crate::state::ledger::Event;
use crate::state::route::Frontier;
use crate::sync::Instant;

/// Commits `abandoned`: the base alone is the table again.
pub(super) fn close_at_from(
    core: &Core,
    run: &Run,
    started: Instant,
    event: Event,
    expected: Phase,
) -> Result<()> {
    let name = run.name.as_str();
    core.change(started, |catalog| {
        let entry = catalog.migration_mut(name)?;
        if entry.phase()? != expected {
            return Err(Error::Conflict { subject: format!("migration {name}") });
        }
        entry.set_phase(Phase::Abandoned);
        let steps = entry.tables.clone();
        for step in &steps {
            let table = catalog.table_mut(&step.table)?;
            table.generations.truncate(1);
            table.active = step.from;
            table.migration = None;
        }
        let mut flips = Vec::new();
        for step in &steps {
            flips.push((core.table(&step.table)?, core.route_of(catalog, &step.table)?));
        }
        Ok(Change { event, flips, result: () })
    })?;
    for table in &run.tables {
        table.state.set_frontier(Frontier::Start);
        table.state.set_activity(Activity::Sweep);
    }
    run.close(&core.shared);
    Ok(())
}
