//! Arbitrary bytes as catalog, progress and ledger, below a store.
#![no_main]

#[path = "../../tests/it/kit/format.rs"]
mod format;
#[path = "../../tests/it/kit/types.rs"]
#[allow(dead_code)]
mod types;

use std::sync::Arc;

use exuvia::{Budget, Durability, Store};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use types::{UserV1, UserV2};

const GOLDEN: [&str; 10] = [
    include_str!("../../tests/golden/settled.dump"),
    include_str!("../../tests/golden/copying.dump"),
    include_str!("../../tests/golden/open.dump"),
    include_str!("../../tests/golden/one-way.dump"),
    include_str!("../../tests/golden/rolled-back.dump"),
    include_str!("../../tests/golden/folding.dump"),
    include_str!("../../tests/golden/contracted.dump"),
    include_str!("../../tests/golden/abandoned.dump"),
    include_str!("../../tests/golden/2/open.dump"),
    include_str!("../../tests/golden/2/contracted.dump"),
];

#[derive(Debug, Arbitrary)]
struct Input {
    golden: u8,
    /// What is done to the store's own values; to the catalog first.
    changes: Vec<Change>,
}

#[derive(Debug, Arbitrary)]
struct Change {
    value: u8,
    /// Whether the checksum is put right afterwards.
    whole: bool,
    how: How,
}

#[derive(Debug, Arbitrary)]
enum How {
    Set(u16, u8),
    Insert(u16, Vec<u8>),
    Remove(u16, u8),
    Replace(Vec<u8>),
    Delete,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn changed(key: &[u8], value: &[u8], change: &Change) -> Option<Vec<u8>> {
    let mut body = value[1..value.len().max(5) - 4].to_vec();
    let place = |at: u16, len: usize| usize::from(at) % len.max(1);
    match &change.how {
        How::Set(at, byte) => {
            let at = place(*at, body.len());
            if let Some(old) = body.get_mut(at) {
                *old = *byte;
            }
        }
        How::Insert(at, bytes) => {
            let at = place(*at, body.len());
            body.splice(at..at, bytes.iter().copied());
        }
        How::Remove(at, count) => {
            let at = place(*at, body.len());
            body.drain(at..body.len().min(at + usize::from(*count)));
        }
        How::Replace(bytes) => body.clone_from(bytes),
        How::Delete => return None,
    }
    let mut whole = format::sealed(key, value.first().copied().unwrap_or(1), &body);
    if !change.whole {
        whole.pop();
    }
    Some(whole)
}

fuzz_target!(|input: Input| {
    let golden = GOLDEN[usize::from(input.golden) % GOLDEN.len()];
    let mut dump: format::Dump = golden
        .lines()
        .map(|line| {
            let mut parts = line.split(' ');
            let mut part = || parts.next().unwrap();
            (part().to_owned(), unhex(part()), unhex(part()))
        })
        .collect();
    let own: Vec<usize> =
        (0..dump.len()).filter(|at| ["catalog", "ledger"].contains(&&*dump[*at].0)).collect();
    let mut gone = Vec::new();
    for change in input.changes.iter().take(8) {
        // The catalog comes first among them.
        let at = own[if change.value < 128 { 0 } else { usize::from(change.value) % own.len() }];
        let (_, key, value) = &dump[at];
        match changed(key, value, change) {
            Some(value) => dump[at].2 = value,
            None => gone.push(at),
        }
    }
    gone.sort_unstable();
    gone.dedup();
    for at in gone.into_iter().rev() {
        dump.remove(at);
    }
    let engine = format::load(&dump);
    let interval = std::time::Duration::from_secs(3600);
    let options = Store::options().durability(Durability::Buffered { interval }).budget(Budget::unlimited());
    let Ok(store) = options.open_in(Arc::new(engine.clone())) else {
        assert_eq!(
            format::dump(&engine),
            format::dump(&format::load(&dump)),
            "a refused open changed something"
        );
        return;
    };
    let _ = (store.verify(), store.inventory(), store.ledger(), store.stats(), store.migrations());
    for name in store.tables() {
        if let Ok(table) = store.table::<u64, UserV1>(&name) {
            let _ = (table.get(&2), table.put(&2, &types::v1("Ann A", 1)), table.scan(..).count());
        }
        if let Ok(table) = store.table::<u64, UserV2>(&name) {
            let _ = (table.get(&2), table.put(&3, &types::v2("Bob", "B", 1, None)), table.scan(..).count());
            let _ = store.plan("another").table(&table).paused().begin();
        }
    }
    for status in store.migrations().unwrap_or_default() {
        if let Ok(migration) = store.migration(&status.name) {
            let _ = (migration.step(4), migration.rollback(), migration.resume(), migration.step(100));
            if let Ok(plan) = migration.contract() {
                let _ = plan.execute();
            }
        }
    }
    let _ = (store.verify(), store.close());
});
