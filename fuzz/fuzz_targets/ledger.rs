//! Arbitrary changes of ledger entries, under right checksums and hashes, below a store: none is read as if nothing had
//! happened.
#![no_main]

#[path = "../../tests/it/kit/format.rs"]
mod format;

use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::{Durability, Plain, Store, Table};
use exuvia::measure::LedgerEntry;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Change {
    entry: u8,
    how: How,
}

#[derive(Debug, Arbitrary)]
enum How {
    /// The body changed, and its hash put right.
    Body(Vec<u8>),
    Byte(u16, u8),
    /// Any bytes, whole by their checksum.
    Content(Vec<u8>),
    /// Any bytes.
    Value(Vec<u8>),
    Delete,
    /// Under the key of another.
    Swap(u8),
    Append(u64, Vec<u8>),
}

fn options() -> exuvia::Options {
    let interval = std::time::Duration::from_secs(3600);
    Store::options().durability(Durability::Buffered { interval }).background(false)
}

/// A store with a ledger of twelve entries, and those.
fn original() -> (format::Dump, Vec<LedgerEntry>) {
    let engine = MemoryEngine::new();
    let store = options().open_in(Arc::new(engine.clone())).unwrap();
    for number in 0..12 {
        let _table: Table<u64, Plain<u64>> = store.table(&format!("t{number}")).unwrap();
    }
    (format::dump(&engine), store.ledger().unwrap())
}

fn record(key: &[u8], seq: u64, body: &[u8]) -> Vec<u8> {
    let hash = blake3::hash(body);
    let content =
        format::Bytes::default().number(seq).number(body.len() as u64).raw(body).raw(hash.as_bytes());
    format::sealed(key, 1, &content.0)
}

fuzz_target!(|changes: Vec<Change>| {
    let (mut dump, entries) = original();
    let at: Vec<usize> = (0..dump.len()).filter(|at| dump[*at].0 == "ledger").collect();
    let mut gone = Vec::new();
    for change in changes.iter().take(6) {
        let at = at[usize::from(change.entry) % at.len()];
        let key = dump[at].1.clone();
        let seq = u64::from_be_bytes(key.as_slice().try_into().unwrap());
        match &change.how {
            How::Body(body) => dump[at].2 = record(&key, seq, body),
            How::Byte(place, byte) => {
                let len = dump[at].2.len().max(1);
                if let Some(old) = dump[at].2.get_mut(usize::from(*place) % len) {
                    *old = *byte;
                }
            }
            How::Content(content) => dump[at].2 = format::sealed(&key, 1, content),
            How::Value(value) => dump[at].2.clone_from(value),
            How::Delete => gone.push(at),
            How::Swap(other) => {
                let other = dump.iter().filter(|(tree, ..)| tree == "ledger").nth(usize::from(*other) % 12);
                dump[at].2 = other.unwrap().2.clone();
            }
            How::Append(seq, body) => {
                let key = seq.to_be_bytes();
                dump.push(("ledger".to_owned(), key.to_vec(), record(&key, *seq, body)));
            }
        }
    }
    gone.sort_unstable();
    gone.dedup();
    for at in gone.into_iter().rev() {
        dump.remove(at);
    }
    let store = options().open_in(Arc::new(format::load(&dump))).unwrap();
    let report = store.verify().unwrap();
    match store.ledger() {
        Ok(read) => assert_eq!(read, entries, "a changed ledger is read as a whole one"),
        Err(e) => assert!(e.is_corruption() || matches!(e, exuvia::Error::Format { .. }), "{e}"),
    }
    assert_eq!(report.is_clean(), store.ledger().is_ok());
    assert!(store.table::<u64, Plain<u64>>("t1").unwrap().put(&1, &Plain(1)).is_ok());
});
