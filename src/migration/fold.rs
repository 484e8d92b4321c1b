//! Abandoning with new writes kept: the overlay's `from` forms move into the base, key by key.
//!
//! The phase `folding` is durable before the first move and there is no resume from it; a reopen goes on with
//! it. Each move is one commit (base written, overlay cleared, if the overlay's entry is still what was read),
//! so a crash leaves every key on one side or the other. A derived entry holds nothing that the base has not,
//! and is just removed. No code of the newer version is needed.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Outcome, Page, Value};
use crate::error::{Error, Result};
use crate::form::envelope::{self, Flags};
use crate::form::resolve::{self, Form, Side};
use crate::migration::close::close_at_from;
use crate::migration::core::Core;
use crate::migration::host::Seated;
use crate::migration::retry::{self, Retries, is_transient};
use crate::migration::run::{Run, RunTable};
use crate::pace::{Calls, Paced, Step, lower_priority};
use crate::state::catalog::Phase;
use crate::state::ledger::Event;
use crate::state::route::{Kind, Open, Route, fold_commit};
use crate::sync::Instant;

pub(crate) fn work(core: &Arc<Core>, run: &Arc<Run>) {
    lower_priority();
    let mut paced = Seated::paced(run, &core.shared);
    let mut retries = Retries::new();
    while !run.stopping() {
        match fold(core, run, &mut paced, &mut retries) {
            Ok(()) => return,
            Err(e) if is_transient(&e) && !core.shared.is_poisoned() => retries.rest(run, "folding", &e),
            Err(e) => return retry::failed(run, "folding", &e),
        }
    }
}

fn fold(core: &Arc<Core>, run: &Run, paced: &mut Paced<Seated<'_>>, retries: &mut Retries) -> Result<()> {
    let started = Instant::now();
    let mut moved = 0;
    for table in &run.tables {
        if !fold_table(run, table, paced, retries, &mut moved)? {
            return Ok(());
        }
    }
    close(core, run, started, moved)
}

/// Moves everything, and counts the records that were moved. Answers `false` if it was stopped.
fn fold_table(
    run: &Run,
    table: &RunTable,
    paced: &mut Paced<Seated<'_>>,
    retries: &mut Retries,
    moved: &mut u64,
) -> Result<bool> {
    let state = &table.state;
    let route = state.route_owned();
    let open = match &route.kind {
        Kind::Folding(open) => open,
        _ => return Ok(true),
    };
    let mut lower = Bound::Unbounded;
    paced.drive(|batch, calls| {
        let mut page = Page::new();
        let range = (lower.as_ref().map(Vec::as_slice), Bound::Unbounded);
        let end = calls.make(|| open.overlay.tree.scan(range, false, batch, &mut page))?;
        let read = page.len();
        for (key, value) in page {
            if run.stopping() {
                return Ok(Step::Stopped);
            }
            *moved += u64::from(fold_entry(table, &route, open, calls, &key, value)?);
            lower = Bound::Excluded(key.to_vec());
            calls.give_turn();
        }
        if read > 0 {
            retries.got_on();
        }
        Ok(if end { Step::Done } else { Step::Did(read) })
    })
}

/// Moves one key. Answers whether a record was moved (and not just a derived entry removed).
fn fold_entry(
    table: &RunTable,
    route: &Route,
    open: &Open,
    calls: &mut Calls,
    key: &[u8],
    value: Value,
) -> Result<bool> {
    let state = &table.state;
    let mut waited = Duration::ZERO;
    let mut value = value;
    loop {
        let entry = state.parse(key, value)?;
        let form = match resolve::overlay(&entry, open.from, open.to, Side::From) {
            Form::Absent => Some(None),
            Form::Base => None,
            Form::Main => Some(Some((entry.version(), entry.main()))),
            Form::Companion => Some(entry.companion()),
            form => {
                let reason = format!("an entry that cannot be folded ({form:?})");
                return Err(Error::corrupt(&state.name, key, reason));
            }
        };
        // What was brought forward from an old writer's record moves too: the base has not got it.
        let done = match form {
            None => {
                let clear = || open.overlay.tree.compare_and_swap(key, Some(entry.bytes()), None);
                state.gated(route.epoch, &mut waited, || calls.make(clear))?
            }
            Some(record) => {
                let record = record.map(|(v, bytes)| envelope::seal(key, Flags::NONE, v, bytes, None));
                let (checks, writes) = fold_commit(&open.overlay, &open.base, key, entry.bytes(), record);
                let commit = || state.shared.engine.commit(&checks, &writes);
                state
                    .gated(route.epoch, &mut waited, || calls.make(commit))?
                    .map(|outcome| outcome == Outcome::Applied)
            }
        };
        match done {
            Some(true) => return Ok(form.is_some()),
            // A writer was here: it went to the base and took the overlay's entry with it.
            Some(false) => match open.overlay.tree.get(key)? {
                Some(next) => value = next,
                None => return Ok(false),
            },
            None => {
                return Err(Error::Conflict { subject: format!("table {}", state.name) });
            }
        }
    }
}

/// Commits `abandoned`: the base alone is the table again.
fn close(core: &Arc<Core>, run: &Run, started: Instant, moved: u64) -> Result<()> {
    // Flush before the commit that closes a migration (O10).
    core.shared.flush()?;
    let event = Event::new("abandon", &run.name).count("records folded", moved);
    close_at_from(core, run, started, event, Phase::Folding)?;
    core.start_sweeper();
    Ok(())
}
