//! Scans: from both ends, and what they ask the engine for.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use exuvia::engine::MemoryEngine;
use exuvia::{Plain, Result, Table};

use crate::kit::hook_engine::{Call, HookEngine};
use crate::kit::scene::*;
use crate::kit::types::*;

/// Whoever takes from both ends of a scan gets each record once, the smallest or the largest of what is left.
#[test]
fn the_ends_of_a_scan_meet() {
    for count in [1, 5, 40, 100] {
        let s = scene(count);
        let migration = s.begin();
        for round in 0..3 {
            for pattern in [0x5555_5555_u32, 0x0f0f_0f0f, 0xff00_0000, 0x8000_0001, 0xb6db_6db6] {
                let mut model: VecDeque<u64> = (0..count).collect();
                let (mut old, mut new) = (s.old.scan(..), s.new.scan(..));
                for bit in (0..32).cycle() {
                    let (expected, old, new) = if pattern >> bit & 1 == 1 {
                        (model.pop_back(), old.next_back(), new.next_back())
                    } else {
                        (model.pop_front(), old.next(), new.next())
                    };
                    assert_eq!(old.map(Result::unwrap), expected.map(|id| (id, first(id))));
                    assert_eq!(new.map(Result::unwrap), expected.map(|id| (id, first2(id))));
                    if expected.is_none() {
                        break;
                    }
                }
            }
            // Nothing, a part, and all of it is migrated.
            match round {
                0 => drop(migration.step(count as usize / 2).unwrap()),
                _ => drop(complete(&migration)),
            }
        }
        let settled = scene(count);
        let mut scan = settled.old.scan(..);
        let mut model: VecDeque<u64> = (0..count).collect();
        while let Some(last) = model.pop_back() {
            assert_eq!(scan.next_back().map(|record| record.unwrap().0), Some(last));
            assert_eq!(scan.next().map(|record| record.unwrap().0), model.pop_front());
        }
        assert!(scan.next().is_none() && scan.next_back().is_none());
    }
}

/// A complete migration has all in the overlay: a scan at its newer view asks the base for nothing. And pages grow.
#[test]
fn a_scan_makes_few_calls() {
    let s = scene(2000);
    let scans = |new: bool| {
        s.engine.reset();
        let records = if new { s.new.scan(..).count() } else { s.old.scan(..).count() };
        assert_eq!(records, 2000);
        (s.engine.count(Call::Scan, BASE), s.engine.count(Call::Scan, OVERLAY))
    };
    // 16 records, twice, then 32, 64, 128, and then 256 at a time: the first five read 256, and seven the rest.
    assert_eq!(scans(false), (12, 0));
    let migration = s.begin();
    let mut copied = 0;
    while copied < 1000 {
        copied = migration.step(100).unwrap().tables[0].counts.copied;
    }
    // What the backfill has passed is in the overlay alone, and needs no look at the base either.
    let base = |from: u64, to: u64, reverse: bool| {
        s.engine.reset();
        let scan = s.new.scan(from..to);
        let records = if reverse { scan.rev().count() } else { scan.count() };
        assert_eq!(records as u64, to - from);
        s.engine.count(Call::Scan, BASE)
    };
    assert_eq!((base(0, 900, false), base(0, 900, true), base(500, copied - 1, false)), (0, 0, 0));
    // Forward, a scan comes to the rest with a page of its own.
    assert_eq!(base(copied - 16, copied + 10, false), 1);
    assert!(base(copied, 2000, false) > 0 && base(0, 2000, true) > 0);
    for (id, gets) in [(0, 0), (copied - 1, 0), (copied, 1), (1999, 1)] {
        s.engine.reset();
        s.new.get(&id).unwrap();
        assert_eq!(s.engine.count(Call::Get, BASE), gets, "{id}");
    }
    // Nor does a key that nobody has, once the backfill has passed it.
    let looks = || {
        s.engine.reset();
        assert_eq!(s.new.get(&5000).unwrap(), None);
        s.engine.count(Call::Get, BASE)
    };
    assert_eq!(looks(), 1);
    complete(&migration);
    assert_eq!(looks(), 0);
    assert_eq!(scans(true), (0, 12));
    assert!(scans(false).0 > 0);
}

#[test]
fn pages_by_key_give_every_record_once() {
    let s = scene(100);
    let migration = s.begin();
    migration.step(50).unwrap();
    let mut seen = BTreeMap::new();
    let mut after = Unbounded;
    loop {
        let page: Vec<(u64, UserV1)> = s.old.scan((after, Unbounded)).take(7).collect::<Result<_>>().unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Excluded(*last);
        for (id, user) in page {
            assert!(seen.insert(id, user).is_none());
        }
    }
    assert_eq!(seen, s.all_old());
}

#[test]
fn prefixes_of_strings_bytes_and_tuples() {
    let store = open(&HookEngine::new(MemoryEngine::new()));
    let words: Table<String, Plain<u8>> = store.table("words").unwrap();
    let bytes: Table<Vec<u8>, Plain<u8>> = store.table("bytes").unwrap();
    let pairs: Table<(String, u32), Plain<u8>> = store.table("pairs").unwrap();
    for word in ["", "n", "no", "nob", "np", "o", "no\0", "\u{10ffff}"] {
        words.put(&word.to_owned(), &Plain(0)).unwrap();
        bytes.put(&word.as_bytes().to_vec(), &Plain(0)).unwrap();
        pairs.put(&(word.to_owned(), 1), &Plain(0)).unwrap();
        pairs.put(&(word.to_owned(), 2), &Plain(0)).unwrap();
    }
    bytes.put(&vec![0xff, 0xff], &Plain(0)).unwrap();
    let found: Vec<String> = words.scan_prefix("no").map(|next| next.unwrap().0).collect();
    assert_eq!(found, ["no", "no\0", "nob"]);
    let found: Vec<Vec<u8>> = bytes.scan_prefix(&b"no"[..]).map(|next| next.unwrap().0).collect();
    assert_eq!(found, [&b"no"[..], b"no\0", b"nob"]);
    assert_eq!(bytes.scan_prefix(&[0xff_u8][..]).count(), 1);
    let found: Vec<u32> = pairs.scan_prefix(&("no".to_owned(),)).map(|next| next.unwrap().0.1).collect();
    assert_eq!(found, [1, 2]);
    assert_eq!(words.scan_prefix("").count(), 8);
}
