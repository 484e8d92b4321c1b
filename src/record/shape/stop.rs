//! How a pass over a type ends before its end.

use std::fmt;

/// Why a pass ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// It learned what it was after; the next pass goes on.
    Again,
    /// The type does not take the values that it was given.
    Refused(String),
}

impl Stop {
    pub(super) fn refused(reason: impl fmt::Display) -> Self {
        Stop::Refused(reason.to_string())
    }

    pub(super) fn changed() -> Self {
        Stop::refused("its `Deserialize` reads different things from one time to the next")
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Again => f.write_str("the pass is over"),
            Stop::Refused(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Stop {}
