//! What the model test found, each as the case that it was shrunk to.

use std::sync::Arc;
use std::time::Duration;

use exuvia::engine::MemoryEngine;
use exuvia::{Durability, Store};

use super::op::{Op, Setup};
use super::several::Write;
use super::{in_memory, replay};

fn case(versions: [u32; 2], keys: u16, fill: &[(usize, u16, u8, u8, u8)], ops: &[Op]) {
    let setup = Setup { versions, every_write: false, keys, fill: fill.to_vec() };
    replay(&setup, in_memory(), ops, || {});
}

/// `rollback_fenced` did not fence a step that has no overlay.
#[test]
fn a_fence_holds_for_a_step_of_metadata_only() {
    let ops = [
        Op::Put { table: 0, key: 0, view: 2, row: [0, 100, -1, 0] },
        Op::Begin { index: 0, tables: vec![(0, 3)], one_way: false },
        Op::Rollback { index: 0, fenced: true },
        Op::Put { table: 0, key: 0, view: 3, row: [0, 100, -1, 0] },
    ];
    case([2, 1], 1, &[], &ops);
}

/// Before `begin`, a put of the new version erased the field that it drops.
#[test]
fn a_dropped_field_survives_a_new_writer_before_begin() {
    let ops = [
        Op::Put { table: 1, key: 0, view: 1, row: [0, 0, 2, 0] },
        Op::Put { table: 1, key: 0, view: 2, row: [1, 0, 0, 0] },
        Op::Get { table: 1, key: 0, view: 1 },
    ];
    case([1, 1], 1, &[], &ops);
}

/// The place of a pass over the overlay ended with the step, and the migration called itself complete.
#[test]
fn a_pass_in_small_steps_leaves_nothing_behind() {
    let fill: Vec<(usize, u16, u8, u8, u8)> = (1..17).map(|key| (1, key, 0, 0, 0)).collect();
    let ops = [
        Op::Begin { index: 0, tables: vec![(1, 2)], one_way: false },
        Op::Put { table: 1, key: 26, view: 1, row: [0, 0, 0, 0] },
        Op::Put { table: 1, key: 24, view: 1, row: [0, 0, 0, 0] },
        Op::Restart { index: 0 },
        Op::Put { table: 1, key: 0, view: 1, row: [0, 0, 0, 0] },
        Op::Finish { index: 0, records: 1 },
    ];
    case([1, 1], 27, &fill, &ops);
}

/// The reason of a record that left the quarantine was removed before the write that took it out was durable: a crash brought
/// the record back into it without one.
#[test]
fn a_crash_brings_no_record_back_into_quarantine_without_its_reason() {
    let write = |row| Write { table: 1, key: 1, view: 1, row };
    let ops = [
        Op::Transaction { reads: vec![], writes: vec![write(Some([7, 0, 0, 0]))] },
        Op::Begin { index: 0, tables: vec![(1, 3)], one_way: false },
        Op::Step { index: 0, records: 2 },
        Op::Put { table: 1, key: 1, view: 1, row: [0, 0, 0, 0] },
        Op::Step { index: 0, records: 2 },
        Op::Doom { writes: 0, share: 1, any: Some(14_368_937_300_723_255_966) },
        Op::Put { table: 0, key: 0, view: 1, row: [0, 0, 0, 0] },
    ];
    case([1, 1], 1, &[], &ops);
}

/// A migration that skips to a version of the same bytes was refused: the layout was compared with that of the
/// version that it comes from, and not of the one before.
#[test]
fn a_skip_to_a_version_of_the_same_bytes() {
    let ops = [
        Op::Put { table: 0, key: 0, view: 1, row: [1, 1, 0, 0] },
        Op::Begin { index: 0, tables: vec![(0, 3)], one_way: false },
        Op::Finish { index: 0, records: 2 },
        Op::Contract { index: 0, code: true },
        Op::Get { table: 0, key: 0, view: 3 },
    ];
    case([1, 1], 1, &[], &ops);
}

/// The notice to stop was lost if it came between the flush thread's look at its flag and its wait; a close then
/// took a whole interval.
#[test]
fn a_close_does_not_wait_for_the_flush_interval() {
    let (closed, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..500 {
            let options =
                Store::options().durability(Durability::Buffered { interval: Duration::from_secs(3600) });
            drop(options.open_in(Arc::new(MemoryEngine::recording())).unwrap());
        }
        closed.send(()).unwrap();
    });
    waiting.recv_timeout(Duration::from_secs(60)).expect("500 closes do not take an hour");
}
