//! Compares every record of a store with the model, while the traffic is halted.

use crate::load::Load;
use crate::model::{State, check};
use crate::progress::Progress;
use crate::source::Source;
use crate::subject::Subject;
use crate::types::{Airport, View};

/// Records in one scan.
const PAGE: usize = 1000;

/// What all comparisons of a run amount to.
#[derive(Debug, Default)]
pub(crate) struct Verification {
    /// Keys compared, counted once for each view.
    pub(crate) compared: u64,
    /// Keys that had to be compared.
    pub(crate) due: u64,
}

impl Verification {
    /// Halts the traffic, compares every key at each of `views`, and lets the traffic go on.
    pub(crate) fn pass(
        &mut self,
        subject: &dyn Subject,
        source: &Source,
        load: &Load,
        views: &[View],
        progress: &mut Progress,
    ) {
        load.halt();
        for view in views {
            progress.start(&format!("verify {view}"), source.records());
            self.due += source.records();
            let mut compare = Compare { subject, source, load, view: *view, next: 0 };
            if let Err(difference) = compare.all(progress) {
                load.differs(format!("the comparison at {view} ended at key {}: {difference}", compare.next));
            }
            self.compared += compare.next;
            progress.end();
        }
        load.release();
    }

    /// Whether every key that had to be compared was.
    pub(crate) fn is_complete(&self) -> bool {
        self.compared == self.due && self.due > 0
    }
}

/// One walk over all keys at one view.
struct Compare<'a> {
    subject: &'a dyn Subject,
    source: &'a Source,
    load: &'a Load,
    view: View,
    /// The first key that was not compared yet.
    next: u64,
}

impl Compare<'_> {
    fn all(&mut self, progress: &mut Progress) -> Result<(), String> {
        let records = self.source.records();
        let mut from = 0;
        loop {
            let page = self.subject.scan(from, PAGE, self.view).map_err(|e| e.to_string())?;
            for (key, airport) in &page {
                if *key < self.next || *key >= records {
                    return Err(format!(
                        "the scan gave key {key}, which is out of order or was never written"
                    ));
                }
                while self.next < *key {
                    self.absent()?;
                }
                self.compare(Some(airport));
            }
            progress.set(self.next, records);
            match page.last() {
                Some((last, _)) if page.len() == PAGE => from = last + 1,
                _ => break,
            }
        }
        while self.next < records {
            self.absent()?;
        }
        progress.set(self.next, records);
        Ok(())
    }

    /// A key that the scan did not show must not be there for a reader of that key either.
    fn absent(&mut self) -> Result<(), String> {
        let found = self.subject.get(self.next, self.view).map_err(|e| e.to_string())?;
        if found.is_some() {
            self.load
                .differs(format!("key {} at {} can be read but is missing in a scan", self.next, self.view));
        }
        self.compare(None);
        Ok(())
    }

    fn compare(&mut self, found: Option<&Airport>) {
        let owner = (self.next % (self.load.shards().len() as u64).max(1)) as usize;
        let state =
            self.load.shards().get(owner).map_or(State::LOADED, |shard| shard.lock().state(self.next));
        if let Err(difference) = check(self.source, self.next, state, self.view, found) {
            self.load.differs(difference);
        }
        self.next += 1;
    }
}
