//! What all handles of one store share: its state, and what runs in the background.

#[cfg(all(any(feature = "sled", feature = "fjall"), not(any(windows, exuvia_shuttle))))]
pub(crate) mod exit;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::duty::Duty;
use crate::engine::Stage;
use crate::error::{Error, Result};
use crate::migration::run::Run;
use crate::pace::Stop;
use crate::state::change::State;
use crate::state::settings::Durability;
use crate::state::shared::Shared;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::JoinHandle;
use crate::threads::spawn;

/// How often what the background wrote is flushed where every foreground write is.
const BACKGROUND_FLUSH: Duration = Duration::from_millis(500);

/// The whole store. Background threads hold it; handles hold it through a [`Lease`].
pub(crate) struct Core {
    state: State,
    pub(crate) runs: Mutex<HashMap<String, Arc<Run>>>,
    pub(crate) sweeper: Mutex<Option<Sweeper>>,
    pub(crate) duties: Duties,
    owed: Owed,
    /// A copy is being made: there is one at a time.
    pub(crate) copying: AtomicBool,
    #[cfg(all(unix, feature = "control"))]
    pub(crate) control: Mutex<Option<Box<dyn Service>>>,
    flush_thread: Mutex<Option<JoinHandle<()>>>,
}

/// What is waited for, besides the work on migrations: each [`Run`] has a duty of its own.
pub(crate) struct Duties {
    pub(crate) sweep: Duty,
    /// The regular flush.
    flush: Duty,
    /// What clients of the control socket asked for.
    #[cfg(all(unix, feature = "control"))]
    pub(crate) control: Duty,
}

/// Threads that could not be started when they were to, and are at the next occasion: see [`Core::tend`].
#[derive(Default)]
struct Owed {
    worker: AtomicBool,
    sweeper: AtomicBool,
}

/// The thread that sweeps, and how it is stopped.
pub(crate) struct Sweeper {
    pub(super) stop: Arc<Stop>,
    pub(super) thread: JoinHandle<()>,
}

impl Sweeper {
    pub(crate) fn join(self) {
        self.stop.ask();
        drop(self.thread.join());
    }
}

/// A thread that serves clients, and ends with the store.
#[cfg(all(unix, feature = "control"))]
pub(crate) trait Service: Send {
    /// Stops it. `duty`: what its clients asked for, which may be what closes the store.
    fn stop(self: Box<Self>, duty: Duty);
}

impl Deref for Core {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl Core {
    /// The store of an engine, with nothing in the background yet. See [`State::open`].
    pub(crate) fn open(shared: Arc<Shared>, new: bool) -> Result<Arc<Core>> {
        Ok(Arc::new(Core {
            state: State::open(shared, new)?,
            runs: Mutex::new(HashMap::new()),
            sweeper: Mutex::new(None),
            duties: Duties {
                sweep: Duty::new(),
                flush: Duty::new(),
                #[cfg(all(unix, feature = "control"))]
                control: Duty::new(),
            },
            owed: Owed::default(),
            copying: AtomicBool::new(false),
            #[cfg(all(unix, feature = "control"))]
            control: Mutex::new(None),
            flush_thread: Mutex::new(None),
        }))
    }

    /// Starts the background threads that need no user code.
    pub(crate) fn start(self: &Arc<Core>) -> Result<()> {
        if !self.shared.settings.background {
            return Ok(());
        }
        let interval = match self.shared.settings.durability {
            Durability::Buffered { interval } => interval,
            // For the background's progress; writers flush themselves.
            Durability::EveryWrite => BACKGROUND_FLUSH,
        };
        let (shared, core, duty) = (Arc::clone(&self.shared), Arc::downgrade(self), self.duties.flush);
        let flush = move || {
            let _on_duty = duty.begin();
            let tend = || core.upgrade().iter().for_each(Core::tend);
            // Nobody would make durable what is written after that.
            if let Some(reason) = shared.flusher.run(interval, tend) {
                shared.poison(&reason);
            }
        };
        *self.flush_thread.lock() = Some(spawn("exuvia-flush", flush)?);
        Ok(())
    }

    /// A migration's worker is to be started later.
    pub(crate) fn owe_worker(&self) {
        self.owed.worker.store(true, Ordering::SeqCst);
    }

    /// The sweeper is to be started later.
    pub(crate) fn owe_sweeper(&self) {
        self.owed.sweeper.store(true, Ordering::SeqCst);
    }

    /// Whether a worker was owed; from here on it is not.
    pub(super) fn take_owed_worker(&self) -> bool {
        self.owed.worker.swap(false, Ordering::SeqCst)
    }

    /// Whether the sweeper was owed; from here on it is not.
    pub(super) fn take_owed_sweeper(&self) -> bool {
        self.owed.sweeper.swap(false, Ordering::SeqCst)
    }

    /// Keeps every tree that a catalog names from here on, for a look that takes a while. What is dead already may go.
    pub(crate) fn hold(self: &Arc<Core>) -> Hold {
        self.held.fetch_add(1, Ordering::SeqCst);
        Hold(Arc::clone(self))
    }

    /// Stops everything in the background, flushes, and lets go of the engine and its directory, whatever handles there
    /// are. Later calls are refused.
    ///
    /// Called by user code inside any of that work it does not wait for that: it ends when the user code has returned.
    pub(crate) fn close(&self) -> Result<()> {
        match self.shared.closable.begin_close() {
            Stage::Open => {}
            // It may be this one that the other waits for, so this one does not wait for it.
            Stage::Closing => {
                return Err(Error::state(
                    "close",
                    "another call is closing the store; it is closed when that one answers",
                ));
            }
            Stage::Closed => {
                let let_go = self.shared.closable.check_closed().map_err(Error::from);
                return self.shared.poisoned().map_or(let_go, Err);
            }
        }
        // First, so that nobody starts anything that is stopped below, and no write comes after the last flush.
        let first = self.shared.shut();
        self.shared.gate.exclusive(|| ());
        let runs: Vec<Arc<Run>> = self.runs.lock().values().cloned().collect();
        let ended: Vec<Arc<Run>> = runs.into_iter().filter(|run| run.shut()).collect();
        // After the runs: a verb of a client may have waited for one, and is refused now.
        #[cfg(all(unix, feature = "control"))]
        {
            let control = self.control.lock().take();
            if let Some(control) = control {
                control.stop(self.duties.control);
            }
        }
        self.stop_sweeper();
        self.shared.flusher.stop();
        let flushing = self.flush_thread.lock().take();
        if let (Some(thread), Ok(_awaiting)) = (flushing, self.duties.flush.await_one(String::new)) {
            drop(thread.join());
        }
        let result = match self.shared.poisoned() {
            Some(poisoned) => Err(poisoned),
            None if first => {
                // Both: the flush is what writes in flight, which answer when it is over, count on.
                let (saved, flushed) = (self.save_progress(&ended), self.shared.flusher.flush());
                saved.and(flushed)
            }
            None => Ok(()),
        };
        let let_go = self.shared.closable.close();
        result.and(let_go.map_err(Error::from))
    }

    /// The last thing that an orderly close writes: how far open migrations have come (O3: after a flush of that). Not of one
    /// that is being driven still, by whom user code closes the store: a verb may have changed durably what memory does not
    /// say yet (a restart lowers it, a contract closes it).
    fn save_progress(&self, runs: &[Arc<Run>]) -> Result<()> {
        if self.shared.settings.read_only {
            return Ok(());
        }
        runs.iter().filter(|run| run.is_open()).try_for_each(|run| run.save(&self.shared))
    }
}

/// See [`Core::hold`].
#[must_use = "let go at once, it keeps nothing"]
pub(crate) struct Hold(Arc<Core>);

impl Drop for Hold {
    fn drop(&mut self) {
        let core = &self.0;
        let last = core.held.fetch_sub(1, Ordering::SeqCst) == 1;
        // What died meanwhile. If the trees cannot be listed now, the next verb or open sees to it.
        if last && core.shared.engine.trees().is_ok_and(|trees| trees.iter().any(|tree| core.is_dead(tree))) {
            core.start_sweeper();
        }
    }
}

/// Held by every handle; the last one that goes closes the store.
pub(crate) struct Lease(pub(crate) Arc<Core>);

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(e) = self.0.close() {
            tracing::error!(target: "exuvia", error = %e, "closing the store failed");
        }
    }
}
