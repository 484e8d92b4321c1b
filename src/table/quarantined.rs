//! The records of a table that are in quarantine, by their keys.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::migration::core::Lease;
use crate::record::key::Key;
use crate::state::in_quarantine::{Next, Reasons, page};
use crate::state::route::{Kind, TableState};

/// The records of a table that are in quarantine, with the reasons. See `Table::quarantined`.
pub(crate) struct Quarantined<K> {
    state: Arc<TableState>,
    _lease: Arc<Lease>,
    next: Next,
    page: Reasons,
    types: PhantomData<fn() -> K>,
}

impl<K: Key> Quarantined<K> {
    pub(crate) fn new(state: Arc<TableState>, lease: Arc<Lease>) -> Self {
        let next = Some(Bound::Unbounded);
        Self { state, _lease: lease, next, page: VecDeque::new(), types: PhantomData }
    }

    /// One page by one epoch; again if it moved, as any read.
    fn read_page(&mut self, lower: &Bound<Vec<u8>>) -> Result<()> {
        loop {
            self.state.shared.check_usable()?;
            let route = self.state.route_owned();
            let read = match &route.kind {
                Kind::Open(open) => page(&self.state, open, lower),
                Kind::Dropped => Err(self.state.dropped()),
                Kind::Settled { .. } | Kind::Folding(_) => Ok((VecDeque::new(), None)),
            };
            if self.state.holds(route.epoch) {
                (self.page, self.next) = read?;
                return Ok(());
            }
        }
    }
}

impl<K: Key> Iterator for Quarantined<K> {
    type Item = Result<(K, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, reason)) = self.page.pop_front() {
                let damaged =
                    |e| Error::corrupt(&self.state.name, &key, format!("the key does not decode: {e}"));
                return Some(K::decode(&key).map(|typed| (typed, reason)).map_err(damaged));
            }
            let lower = self.next.take()?;
            // After an error there is nothing: it ends the look.
            if let Err(e) = self.read_page(&lower) {
                return Some(Err(e));
            }
        }
    }
}
