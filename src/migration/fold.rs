//! Abandoning with new writes kept: the overlay's `from` forms move into the base, key by key.
//!
//! The phase `folding` is durable before the first move and there is no resume from it; a reopen goes on with
//! it. Each move is one commit (base written, overlay cleared, if the overlay's entry is still what was read),
//! so a crash leaves every key on one side or the other. A derived entry holds nothing that the base has not,
//! and is just removed. No code of the newer version is needed.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Phase;
use crate::core::Core;
use crate::engine::{Outcome, Page, Value};
use crate::envelope::{self, Flags};
use crate::error::{Error, Result};
use crate::ledger::Event;
use crate::migration::pacer::{Measured, Pacer};
use crate::migration::retry::{self, Retries, is_transient};
use crate::migration::run::{Run, RunTable};
use crate::migration::turns::{Steps, give_turn};
use crate::migration::worker;
use crate::resolve::{self, Form, Side};
use crate::route::{Kind, Open, Route};
use crate::seeded::{Bug, bug};
use crate::stats::BackgroundMeter;
use crate::sync::{Instant, thread};
use crate::write::fold_commit;

pub(crate) fn work(core: &Arc<Core>, run: &Arc<Run>) {
    worker::lower_priority();
    let meter = core.shared.recorder.background();
    let mut retries = Retries::new();
    while !run.stopping() {
        match fold(core, run, &meter, &mut retries) {
            Ok(()) => return,
            Err(e) if is_transient(&e) && !core.shared.is_poisoned() => retries.rest(run, "folding", &e),
            Err(e) => return retry::failed(run, "folding", &e),
        }
    }
}

fn fold(core: &Arc<Core>, run: &Run, meter: &BackgroundMeter, retries: &mut Retries) -> Result<()> {
    let started = Instant::now();
    let mut moved = 0;
    for table in &run.tables {
        moved += fold_table(run, table, meter, retries)?;
        if run.stopping() {
            return Ok(());
        }
    }
    close(core, run, started, moved)
}

/// Moves everything; answers the number of records that were moved.
pub(super) fn fold_table(
    run: &Run,
    table: &RunTable,
    meter: &BackgroundMeter,
    retries: &mut Retries,
) -> Result<u64> {
    let state = &table.state;
    let route = state.route_owned();
    let open = match &route.kind {
        Kind::Folding(open) => open,
        Kind::Open(open) if bug(Bug::FoldUnannounced) => open,
        _ => return Ok(0),
    };
    let mut moved = 0;
    let mut lower = Bound::Unbounded;
    let (mut pacer, mut steps) = (Pacer::new(), Steps::new());
    while !run.stopping() {
        let budget = run.control().budget;
        worker::give_way(&state.shared, || run.stopping());
        let mut calls = Vec::new();
        let batch = pacer.batch();
        let (result, spent) = steps.timed(|| -> Result<(usize, bool)> {
            let mut page = Page::new();
            let range = (lower.as_ref().map(Vec::as_slice), Bound::Unbounded);
            let (end, took) = meter.call(|| open.overlay.tree.scan(range, false, batch, &mut page));
            calls.push(took);
            let end = end?;
            let read = page.len();
            for (key, value) in page {
                moved += u64::from(fold_entry(table, &route, open, meter, &key, value, &mut calls)?);
                lower = Bound::Excluded(key.to_vec());
                give_turn();
            }
            Ok((read, end))
        });
        let (page, end) = result?;
        if page > 0 {
            retries.got_on();
        }
        meter.record(&calls);
        let engine = calls.iter().sum();
        state.shared.recorder.batch(engine);
        if end {
            return Ok(moved);
        }
        thread::sleep(pacer.rest_after(&budget, &Measured { records: page, engine, spent }));
    }
    Ok(moved)
}

/// Moves one key. Answers whether a record was moved (and not just a derived entry removed).
fn fold_entry(
    table: &RunTable,
    route: &Route,
    open: &Open,
    meter: &BackgroundMeter,
    key: &[u8],
    value: Value,
    calls: &mut Vec<Duration>,
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
                let clear = || {
                    let (result, took) =
                        meter.call(|| open.overlay.tree.compare_and_swap(key, Some(entry.bytes()), None));
                    calls.push(took);
                    result
                };
                state.gated(route.epoch, &mut waited, clear)?
            }
            Some(record) => {
                let record = record.map(|(v, bytes)| envelope::seal(key, Flags::NONE, v, bytes, None));
                let (checks, writes) = fold_commit(&open.overlay, &open.base, key, entry.bytes(), record);
                if bug(Bug::FoldTorn) {
                    open.overlay.tree.delete(key)?;
                    match writes.first().and_then(|keep| keep.value.as_ref()) {
                        Some(value) => open.base.tree.put(key, value)?,
                        None => open.base.tree.delete(key)?,
                    }
                    return Ok(true);
                }
                let commit = || {
                    let (result, took) = meter.call(|| state.shared.engine.commit(&checks, &writes));
                    calls.push(took);
                    result
                };
                state.gated(route.epoch, &mut waited, commit)?.map(|outcome| outcome == Outcome::Applied)
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
    // Flush before the commit that closes a migration (rule 10).
    core.shared.flush()?;
    let event = Event::new("abandon", &run.name).count("records folded", moved);
    super::abandon::close_at_from(core, run, started, event, Phase::Folding)?;
    core.start_sweeper();
    Ok(())
}
