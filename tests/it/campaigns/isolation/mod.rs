//! Whether concurrent transactions could have run one after the other, from what they saw.
//!
//! Every key holds a list, and all that a transaction does is read lists and append to them, each time a number of its
//! own. So a list tells the order of its writers, and every read says which of them it saw (Kingsbury and Alvaro, "Elle:
//! inferring isolation anomalies from experimental observations", 2020). From that come the dependencies of Adya's
//! ("Weak consistency", 1999): *ww*, the next writer of a key; *wr*, who saw a write; *rw*, the first write that a reader did
//! not see; and besides, who had ended before who began. A cycle of them is an anomaly, named by the edges that it needs.

mod campaign;
mod checks;

use std::collections::{BTreeMap, HashMap, HashSet};

pub type Key = usize;
/// What is appended: each number once in a history.
pub type Item = u32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Read(Key, Vec<Item>),
    Append(Key, Item),
}

/// A transaction of a history.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub steps: Vec<Step>,
    pub committed: bool,
    pub begun: u64,
    pub ended: u64,
}

/// The edges that a cycle needs, from those that no isolation allows to those that only strict serializability forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Edge {
    WriteWrite,
    WriteRead,
    ReadWrite,
    RealTime,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// A transaction did not see its own writes, or the same list twice.
    Internal(usize),
    /// Somebody saw what a transaction that failed had written (G1a).
    AbortedRead { reader: usize, item: Item },
    /// Somebody saw a transaction's writes to a key half done (G1b).
    IntermediateRead { reader: usize, item: Item },
    /// Two reads of a key that no order of its writes explains, or an item that nobody appended.
    Incompatible { key: Key, reader: usize },
    /// An append that was committed is in no list in the end.
    LostUpdate { writer: usize, item: Item },
    /// G0 (only ww), G1c (ww and wr), G2 (with rw), or against real time.
    Cycle { worst: Edge, transactions: Vec<usize> },
}

/// Looks for anomalies. The last transaction has to read every key, after all others.
pub fn check(history: &[Transaction]) -> Result<(), Anomaly> {
    let committed = || history.iter().enumerate().filter(|(_, transaction)| transaction.committed);
    let mut writers: HashMap<Item, usize> = HashMap::new();
    // Appends to a key that the same transaction went on to append to.
    let mut intermediate: HashSet<Item> = HashSet::new();
    for (number, transaction) in history.iter().enumerate() {
        let mut last: HashMap<Key, Item> = HashMap::new();
        for step in &transaction.steps {
            if let Step::Append(key, item) = step {
                writers.insert(*item, number);
                intermediate.extend(last.insert(*key, *item));
            }
        }
    }
    for (number, transaction) in committed() {
        internal(number, transaction)?;
    }
    let order = versions(history, &writers)?;
    for (reader, transaction) in committed() {
        for (_, list) in outer_reads(transaction) {
            if let Some(item) = list.iter().find(|item| !history[writers[*item]].committed) {
                return Err(Anomaly::AbortedRead { reader, item: *item });
            }
            if let Some(item) = list.last().filter(|item| intermediate.contains(*item)) {
                return Err(Anomaly::IntermediateRead { reader, item: *item });
            }
        }
        for step in &transaction.steps {
            if let Step::Append(key, item) = step
                && !order.get(key).is_some_and(|list| list.contains(item))
            {
                return Err(Anomaly::LostUpdate { writer: reader, item: *item });
            }
        }
    }
    cycles(history, &edges(history, &writers, &order))
}

/// The reads of what others wrote: what the transaction appended itself is cut off.
fn outer_reads(transaction: &Transaction) -> Vec<(Key, Vec<Item>)> {
    let mut own: HashSet<Item> = HashSet::new();
    let mut reads = Vec::new();
    for step in &transaction.steps {
        match step {
            Step::Append(_, item) => {
                own.insert(*item);
            }
            Step::Read(key, list) => {
                let others = list.iter().take_while(|item| !own.contains(*item)).copied().collect();
                reads.push((*key, others));
            }
        }
    }
    reads
}

/// What a transaction reads has to be what it read of the key before, and its own appends since.
fn internal(number: usize, transaction: &Transaction) -> Result<(), Anomaly> {
    let mut known: HashMap<Key, Vec<Item>> = HashMap::new();
    let mut appended: HashMap<Key, Vec<Item>> = HashMap::new();
    for step in &transaction.steps {
        match step {
            Step::Append(key, item) => {
                appended.entry(*key).or_default().push(*item);
                if let Some(list) = known.get_mut(key) {
                    list.push(*item);
                }
            }
            Step::Read(key, list) => {
                let fits = match known.get(key) {
                    Some(expected) => list == expected,
                    None => list.ends_with(appended.get(key).map_or(&[], Vec::as_slice)),
                };
                if !fits {
                    return Err(Anomaly::Internal(number));
                }
                known.insert(*key, list.clone());
            }
        }
    }
    Ok(())
}

/// The longest list that was read of each key: every other has to be its beginning.
fn versions(
    history: &[Transaction],
    writers: &HashMap<Item, usize>,
) -> Result<BTreeMap<Key, Vec<Item>>, Anomaly> {
    let mut longest: BTreeMap<Key, Vec<Item>> = BTreeMap::new();
    let reads = || {
        let committed = history.iter().enumerate().filter(|(_, transaction)| transaction.committed);
        committed.flat_map(|(number, transaction)| {
            outer_reads(transaction).into_iter().map(move |(key, list)| (number, key, list))
        })
    };
    for (_, key, list) in reads() {
        let known = longest.entry(key).or_default();
        if list.len() > known.len() {
            *known = list;
        }
    }
    for (reader, key, list) in reads() {
        let distinct: HashSet<&Item> = list.iter().collect();
        let known = list.iter().all(|item| writers.contains_key(item));
        if !longest[&key].starts_with(&list) || distinct.len() != list.len() || !known {
            return Err(Anomaly::Incompatible { key, reader });
        }
    }
    Ok(longest)
}

type Edges = Vec<Vec<(usize, Edge)>>;

fn edges(history: &[Transaction], writers: &HashMap<Item, usize>, order: &BTreeMap<Key, Vec<Item>>) -> Edges {
    let mut edges: Edges = vec![Vec::new(); history.len()];
    let mut add = |from: usize, to: usize, edge: Edge| {
        if from != to {
            edges[from].push((to, edge));
        }
    };
    for list in order.values() {
        for pair in list.windows(2) {
            add(writers[&pair[0]], writers[&pair[1]], Edge::WriteWrite);
        }
    }
    let committed = || history.iter().enumerate().filter(|(_, transaction)| transaction.committed);
    for (reader, transaction) in committed() {
        for (key, list) in outer_reads(transaction) {
            if let Some(item) = list.last() {
                add(writers[item], reader, Edge::WriteRead);
            }
            if let Some(next) = order[&key].get(list.len()) {
                add(reader, writers[next], Edge::ReadWrite);
            }
        }
        for (later, other) in committed() {
            if transaction.ended < other.begun {
                add(reader, later, Edge::RealTime);
            }
        }
    }
    edges
}

/// A cycle of as harmless edges as none is needed without: the first kind with which there is one names it.
fn cycles(history: &[Transaction], edges: &Edges) -> Result<(), Anomaly> {
    for worst in [Edge::WriteWrite, Edge::WriteRead, Edge::ReadWrite, Edge::RealTime] {
        // 0: not seen; 1: on the path; 2: done.
        let mut state = vec![0_u8; history.len()];
        for root in 0..history.len() {
            let mut path: Vec<(usize, usize)> = Vec::new();
            if state[root] == 0 {
                state[root] = 1;
                path.push((root, 0));
            }
            while let Some((at, next)) = path.last_mut() {
                let (here, edge) = (*at, edges[*at].get(*next).copied());
                *next += 1;
                match edge {
                    None => {
                        state[here] = 2;
                        path.pop();
                    }
                    Some((_, kind)) if kind > worst => {}
                    Some((to, _)) if state[to] == 1 => {
                        let begin = path.iter().position(|(on, _)| *on == to).unwrap_or(0);
                        let transactions = path[begin..].iter().map(|(on, _)| *on).collect();
                        return Err(Anomaly::Cycle { worst, transactions });
                    }
                    Some((to, _)) if state[to] == 0 => {
                        state[to] = 1;
                        path.push((to, 0));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    Ok(())
}
