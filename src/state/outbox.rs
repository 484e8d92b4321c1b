//! An entry of the ledger as it is stored: in the catalog's outbox, and in the ledger's tree.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::measure::observe::LedgerEntry;
use crate::record::codec;

/// The tree of the ledger; keys are sequence numbers, big endian.
pub(crate) const TREE: &str = "ledger";
pub(crate) const FORMAT: u8 = 1;

/// An entry as it is stored: its bytes and their hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) body: Vec<u8>,
    pub(crate) hash: [u8; 32],
}

impl Record {
    pub(crate) fn new(entry: &LedgerEntry) -> Result<Record> {
        let mut body = Vec::new();
        codec::encode(entry, &mut body)
            .map_err(|e| Error::corrupt(TREE, &key(entry.seq), format!("cannot be encoded: {e}")))?;
        let hash = *blake3::hash(&body).as_bytes();
        Ok(Record { seq: entry.seq, body, hash })
    }

    pub(crate) fn entry(&self) -> Result<LedgerEntry> {
        let damaged = |reason: String| Error::corrupt(TREE, &key(self.seq), reason);
        if *blake3::hash(&self.body).as_bytes() != self.hash {
            return Err(damaged("its hash does not fit its content".to_owned()));
        }
        let entry: LedgerEntry = codec::decode(&self.body).map_err(|e| damaged(e.to_string()))?;
        if entry.seq != self.seq {
            return Err(damaged(format!("it says that it is entry {}", entry.seq)));
        }
        Ok(entry)
    }
}

pub(crate) fn key(seq: u64) -> [u8; 8] {
    seq.to_be_bytes()
}
