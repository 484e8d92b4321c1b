//! Starting background threads.

use crate::error::{Error, Result};
use crate::sync::thread::{self, JoinHandle};

/// Starts a background thread; a system without room for one answers with a typed error.
pub(crate) fn spawn<R: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> R + Send + 'static,
) -> Result<JoinHandle<R>> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|e| {
        Error::state("background thread", format!("the system refused to start one ({e}); free some threads"))
    })
}
