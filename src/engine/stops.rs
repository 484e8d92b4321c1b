//! What both engines with files remember of a failure: from which on, and why, calls are refused.

use std::any::Any;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use super::EngineResult;
use crate::error::{EngineError, EngineErrorKind};

/// What a call may do, and so the state from which on it is refused: reads are refused where writes are, not the reverse.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::engine) enum Access {
    Write = 1,
    Read = 2,
}

#[derive(Default)]
pub(in crate::engine) struct Stops {
    state: AtomicU8,
    reason: OnceLock<String>,
}

impl Stops {
    #[inline]
    pub(in crate::engine) fn check(&self, access: Access) -> EngineResult<()> {
        // Relaxed: a call that races with the failure may still get to the engine, as one a moment earlier would.
        if self.state.load(Ordering::Relaxed) >= access as u8 { Err(self.refusal()) } else { Ok(()) }
    }

    #[cold]
    fn refusal(&self) -> EngineError {
        EngineError::new(EngineErrorKind::Poisoned, self.reason().unwrap_or("an earlier call failed"))
    }

    /// From here on calls of this kind are refused, writes wherever reads are. The first reason stays.
    #[cold]
    pub(in crate::engine) fn stop(&self, access: Access, reason: &str) {
        let _first_reason_stays = self.reason.set(reason.to_owned());
        self.state.fetch_max(access as u8, Ordering::SeqCst);
    }

    #[cfg(feature = "sled")]
    pub(in crate::engine) fn reads_stopped(&self) -> bool {
        self.state.load(Ordering::SeqCst) >= Access::Read as u8
    }

    pub(in crate::engine) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }
}

/// A panic of an engine's as an error. The engines assert where others return errors, mostly about damaged files; no
/// argument of a call makes them (see `arguments`). Nobody can tell damage from a defect by a panic, so the message says
/// how to find out.
pub(in crate::engine) fn from_panic(engine: &str, place: &str, panic: &(dyn Any + Send)) -> EngineError {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    // Some messages print a whole page.
    let said: String = said.chars().take(300).collect();
    let message = format!(
        "{place}: {engine} panicked: its files are damaged or it has a defect, and `exuvia verify` tells which: {said}"
    );
    EngineError::new(EngineErrorKind::Corrupt, message)
}
