//! Operations that read and write as one: on one key (update, compare-and-swap) and on several (batch, transaction).

use super::reference::*;

/// One of several writes; without a row the record is removed.
#[derive(Debug, Clone)]
pub struct Write {
    pub table: usize,
    pub key: Key,
    pub view: u32,
    pub row: Option<Row>,
}

/// A key at a view.
pub type At = (usize, Key, u32);

impl World {
    fn write(&self, write: &Write) -> Plan {
        match write.row {
            Some(row) => self.put(write.table, write.key, write.view, row),
            None => self.remove(write.table, write.key, write.view),
        }
    }

    /// Writes of different keys: all or none.
    pub fn several(&self, reads: &[At], writes: &[Write]) -> Plan {
        let mut refusals = Vec::new();
        let mut after = Some(self.clone());
        for (table, key, view) in reads {
            let answers = self.read(*table, *key, *view);
            let errors = answers.iter().filter_map(|answer| match answer {
                Answer::Refused(refusal) => Some(*refusal),
                _ => None,
            });
            let before = refusals.len();
            refusals.extend(errors);
            if refusals.len() - before == answers.len() {
                after = None;
            }
        }
        for write in writes {
            refusals.extend(self.write(write).refusals);
            after = after.and_then(|world| world.write(write).after);
        }
        Plan { refusals, after, between: Vec::new() }
    }

    /// A record that is there becomes `row`; so does an absent one if `insert`.
    pub fn update(&self, (table, key, view): At, row: Option<Row>, insert: bool) -> Plan {
        self.each_cell(table, key, view, |answer| match answer {
            Answer::Found(_) => Some(row),
            _ if insert => row.map(Some),
            _ => None,
        })
    }

    /// `swapped`: only what fits that answer.
    pub fn swap(
        &self,
        (table, key, view): At,
        old: Option<Row>,
        new: Option<Row>,
        swapped: Option<bool>,
    ) -> Plan {
        let fits = |answer: &Answer| *answer == old.map_or(Answer::Absent, Answer::Found);
        let mut world = self.clone();
        if let Some(swapped) = swapped
            && !world.keep_cells(table, key, view, |answer| answer.is_error() || fits(answer) == swapped)
        {
            return Plan { refusals: Vec::new(), after: None, between: Vec::new() };
        }
        world.each_cell(table, key, view, |answer| match (fits(answer), new) {
            (false, _) => None,
            (true, None) if old.is_none() => None,
            (true, new) => Some(new),
        })
    }
}
