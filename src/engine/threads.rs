//! Whether the system has threads for an engine: one that gets too few at its open fails half-way, or waits for ever for a
//! task that nobody does (sled).

use std::sync::Arc;

use super::EngineResult;
use crate::error::{EngineError, EngineErrorKind};
use crate::sync::{Mutex, thread};

/// Starts as many threads at once as an engine needs, and ends them. To be called before anything of the engine's is.
pub(super) fn check(place: &str, wanted: usize) -> EngineResult<()> {
    let door = Arc::new(Mutex::new(()));
    let closed = door.lock();
    let started = (0..wanted).map(|_| {
        let door = Arc::clone(&door);
        thread::Builder::new().name("exuvia-room".to_owned()).spawn(move || drop(door.lock()))
    });
    let (mut threads, mut refused) = (Vec::new(), None);
    for started in started {
        match started {
            Ok(thread) => threads.push(thread),
            Err(e) => {
                refused = Some(e);
                break;
            }
        }
    }
    drop(closed);
    let had = threads.len();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    match refused {
        None => Ok(()),
        Some(e) => {
            let message =
                format!("{place}: the engine needs {wanted} threads, and the system has {had} ({e})");
            Err(EngineError::new(EngineErrorKind::Threads, message))
        }
    }
}
