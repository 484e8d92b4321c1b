//! The checker finds each anomaly that it is for, and none where there is none.

use super::{Anomaly, Edge, Step, Transaction, check};

fn transaction(begun: u64, ended: u64, steps: &[Step]) -> Transaction {
    Transaction { steps: steps.to_vec(), committed: true, begun, ended }
}

fn read(key: usize, list: &[u32]) -> Step {
    Step::Read(key, list.to_vec())
}

/// With a last one that reads both keys.
fn history(mut transactions: Vec<Transaction>, first: &[u32], second: &[u32]) -> Vec<Transaction> {
    transactions.push(transaction(100, 101, &[read(0, first), read(1, second)]));
    transactions
}

use Step::Append;

#[test]
fn one_after_the_other_is_fine() {
    let serial = vec![
        transaction(1, 2, &[Append(0, 1), Append(1, 2)]),
        transaction(3, 4, &[read(0, &[1]), Append(0, 3), read(0, &[1, 3])]),
        transaction(5, 6, &[read(1, &[2]), read(0, &[1, 3])]),
    ];
    assert_eq!(check(&history(serial, &[1, 3], &[2])), Ok(()));
    // Also if they overlap, and the order is not that of their beginnings.
    let overlapping = vec![
        transaction(1, 9, &[read(0, &[3]), Append(1, 2)]),
        transaction(2, 8, &[read(1, &[]), Append(0, 3)]),
    ];
    assert_eq!(check(&history(overlapping, &[3], &[2])), Ok(()));
}

#[test]
fn write_cycles_are_g0() {
    let cycle = vec![
        transaction(1, 9, &[Append(0, 1), Append(1, 2)]),
        transaction(2, 8, &[Append(0, 3), Append(1, 4)]),
    ];
    let found = check(&history(cycle, &[1, 3], &[4, 2]));
    assert!(matches!(found, Err(Anomaly::Cycle { worst: Edge::WriteWrite, .. })), "{found:?}");
}

#[test]
fn what_an_aborted_transaction_wrote_is_seen_by_nobody() {
    let mut aborted = transaction(1, 2, &[Append(0, 1)]);
    aborted.committed = false;
    let seen = history(vec![aborted.clone(), transaction(3, 4, &[read(0, &[1])])], &[1], &[]);
    assert_eq!(check(&seen), Err(Anomaly::AbortedRead { reader: 1, item: 1 }));
    assert_eq!(check(&history(vec![aborted], &[], &[])), Ok(()));
}

#[test]
fn half_a_transaction_is_seen_by_nobody() {
    let half = vec![
        transaction(1, 9, &[Append(0, 1), Append(0, 2)]),
        transaction(2, 8, &[read(0, &[1]), Append(1, 3)]),
    ];
    assert_eq!(check(&history(half, &[1, 2], &[3])), Err(Anomaly::IntermediateRead { reader: 1, item: 1 }));
}

#[test]
fn two_that_see_each_other_are_g1c() {
    let cycle = vec![
        transaction(1, 9, &[Append(0, 1), read(1, &[2])]),
        transaction(2, 8, &[Append(1, 2), read(0, &[1])]),
    ];
    let found = check(&history(cycle, &[1], &[2]));
    assert!(matches!(found, Err(Anomaly::Cycle { worst: Edge::WriteRead, .. })), "{found:?}");
}

#[test]
fn write_skew_and_read_skew_are_g2() {
    let skew = vec![
        transaction(1, 9, &[read(0, &[]), read(1, &[]), Append(0, 1)]),
        transaction(2, 8, &[read(0, &[]), read(1, &[]), Append(1, 2)]),
    ];
    let found = check(&history(skew, &[1], &[2]));
    assert!(matches!(found, Err(Anomaly::Cycle { worst: Edge::ReadWrite, .. })), "{found:?}");
    let skew = vec![
        transaction(1, 9, &[read(0, &[]), read(1, &[2])]),
        transaction(2, 8, &[Append(0, 1), Append(1, 2)]),
    ];
    let found = check(&history(skew, &[1], &[2]));
    assert!(matches!(found, Err(Anomaly::Cycle { worst: Edge::ReadWrite, .. })), "{found:?}");
}

#[test]
fn a_lost_update_is_found() {
    let both = |first: &[u32]| {
        let lost = vec![
            transaction(1, 9, &[read(0, &[]), Append(0, 1)]),
            transaction(2, 8, &[read(0, &[]), Append(0, 2)]),
        ];
        check(&history(lost, first, &[]))
    };
    assert_eq!(both(&[2]), Err(Anomaly::LostUpdate { writer: 0, item: 1 }));
    // Both are there, and neither saw the other.
    let found = both(&[1, 2]);
    assert!(matches!(found, Err(Anomaly::Cycle { worst: Edge::ReadWrite, .. })), "{found:?}");
}

#[test]
fn real_time_counts() {
    let stale = vec![transaction(1, 2, &[Append(0, 1)]), transaction(3, 4, &[read(0, &[])])];
    let found = check(&history(stale, &[1], &[]));
    assert!(matches!(found, Err(Anomaly::Cycle { worst: Edge::RealTime, .. })), "{found:?}");
    let beside = vec![transaction(1, 4, &[Append(0, 1)]), transaction(2, 3, &[read(0, &[])])];
    assert_eq!(check(&history(beside, &[1], &[])), Ok(()));
}

#[test]
fn lists_that_no_order_explains_are_found() {
    let forked = vec![
        transaction(1, 9, &[Append(0, 1)]),
        transaction(1, 9, &[Append(0, 2)]),
        transaction(1, 9, &[read(0, &[2])]),
    ];
    assert_eq!(check(&history(forked, &[1, 2], &[])), Err(Anomaly::Incompatible { key: 0, reader: 2 }));
    let twice = vec![transaction(1, 2, &[Append(0, 1)])];
    assert_eq!(check(&history(twice, &[1, 1], &[])), Err(Anomaly::Incompatible { key: 0, reader: 1 }));
    assert_eq!(check(&history(vec![], &[7], &[])), Err(Anomaly::Incompatible { key: 0, reader: 0 }));
    let own = vec![transaction(1, 2, &[Append(0, 1), read(0, &[])])];
    assert_eq!(check(&history(own, &[1], &[])), Err(Anomaly::Internal(0)));
}
