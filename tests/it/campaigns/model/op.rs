//! Operations, and how they are drawn: every one can be made in every state, but those that fit are likelier.

use exuvia::migration::NewWrites;
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use super::reference::{Answer, Key, NEWEST, Phase, Plan, Row, World};
use super::several::{At, Write};

/// How a scan is read.
#[derive(Debug, Clone)]
pub enum Ends {
    Forward,
    Backward,
    /// From both ends: bit by bit, from the lowest.
    Both(u64),
}

#[derive(Debug, Clone)]
pub enum Op {
    Put {
        table: usize,
        key: Key,
        view: u32,
        row: Row,
    },
    Remove {
        table: usize,
        key: Key,
        view: u32,
    },
    /// A record that is there becomes this one (or goes); an absent one too if `insert`.
    Update {
        at: At,
        row: Option<Row>,
        insert: bool,
    },
    /// Compare-and-swap.
    Swap {
        at: At,
        old: Option<Row>,
        new: Option<Row>,
    },
    /// A batch.
    Batch {
        writes: Vec<Write>,
    },
    /// A transaction.
    Transaction {
        reads: Vec<At>,
        writes: Vec<Write>,
    },
    Get {
        table: usize,
        key: Key,
        view: u32,
    },
    Scan {
        table: usize,
        view: u32,
        from: Key,
        to: Key,
        inclusive: bool,
        ends: Ends,
    },
    Len {
        table: usize,
        view: u32,
    },
    /// Under the name of this index: one that was used before has to be refused.
    Begin {
        index: usize,
        tables: Vec<(usize, u32)>,
        one_way: bool,
    },
    Step {
        index: usize,
        records: usize,
    },
    /// Steps until the backfill is complete.
    Finish {
        index: usize,
        records: usize,
    },
    /// Lets the background worker run until the backfill is complete.
    Background {
        index: usize,
    },
    /// Lets the background worker run beside what follows, or stops it.
    Pause {
        index: usize,
        paused: bool,
    },
    /// Another budget.
    Retune {
        index: usize,
        pause_us: u16,
    },
    Rollback {
        index: usize,
        fenced: bool,
    },
    Resume {
        index: usize,
    },
    Restart {
        index: usize,
    },
    /// With or without opening handles with the new code first.
    Contract {
        index: usize,
        code: bool,
    },
    Abandon {
        index: usize,
        keep: bool,
    },
    Flush,
    /// Every handle is dropped, the store opened again.
    Reopen,
    /// A loss of power: of the unflushed writes this share of 256 survives, as a prefix or, by the seed, in any
    /// selection.
    Crash {
        share: u8,
        any: Option<u64>,
    },
    /// The process dies at the write after so many more, and the power with it.
    Doom {
        writes: u8,
        share: u8,
        any: Option<u64>,
    },
}

impl Op {
    /// Whether it changes records and nothing else.
    pub fn is_write(&self) -> bool {
        use Op::{Batch, Put, Remove, Swap, Transaction, Update};
        matches!(
            self,
            Put { .. } | Remove { .. } | Update { .. } | Swap { .. } | Batch { .. } | Transaction { .. }
        )
    }

    pub fn writes(keep: bool) -> NewWrites {
        if keep { NewWrites::Keep } else { NewWrites::Discard }
    }
}

/// What is drawn at the start of a case.
#[derive(Debug, Clone)]
pub struct Setup {
    pub versions: [u32; 2],
    /// Every write is durable before it returns.
    pub every_write: bool,
    pub keys: Key,
    pub fill: Vec<(usize, Key, u8, u8, u8)>,
}

/// What generation knows: the setup, and the world as it would be if nothing were ever lost.
#[derive(Debug, Clone)]
pub struct Drawn {
    pub setup: Setup,
    pub world: World,
    /// The last operation announced a death: let it meet a verb.
    pub doomed: bool,
}

/// A record of this version from three draws.
pub fn row(table: usize, view: u32, [a, b, c]: [u8; 3]) -> Row {
    let (a, b, c) = (i32::from(a), i32::from(b), i32::from(c));
    let wide = if b == 9 { 50 } else { b + 100 };
    let (extra, tag) = (c % 3, c / 2);
    match (table, view) {
        (0, 1) => [a, b, 0, 0],
        (0, 2 | 3) => [a, wide, extra - 1, 0],
        (0, _) => [a, wide, extra - 1, tag],
        (_, 1 | 2) => [a, b, extra, 0],
        (_, _) => [a, b, extra, tag],
    }
}

/// Few values, so that the same are written again; the refused ones are rare.
fn fields() -> impl Strategy<Value = [u8; 3]> + Clone {
    let a = prop_oneof![12 => 0u8..3, 1 => Just(7u8), 1 => Just(8u8)];
    let b = prop_oneof![12 => 0u8..3, 1 => Just(8u8), 1 => Just(9u8)];
    let c = prop_oneof![6 => 0u8..4, 1 => Just(8u8)];
    (a, b, c).prop_map(|(a, b, c)| [a, b, c])
}

pub fn setups() -> BoxedStrategy<Setup> {
    let keys = prop_oneof![3 => 1u16..5, 2 => 5u16..40];
    let versions = prop_oneof![5 => Just([1, 1]), 1 => Just([2, 1]), 1 => Just([1, 2]), 1 => Just([2, 2])];
    (keys, versions, prop::bool::weighted(0.2))
        .prop_flat_map(|(keys, versions, every_write)| {
            let fill = prop::collection::vec((0usize..2, 0..keys, fields()), 0..usize::from(keys) * 2);
            fill.prop_map(move |fill| Setup {
                versions,
                every_write,
                keys,
                fill: fill.into_iter().map(|(table, key, [a, b, c])| (table, key, a, b, c)).collect(),
            })
        })
        .boxed()
}

/// A table and a view, likely one that may read.
fn views(world: &World) -> BoxedStrategy<(usize, u32)> {
    let mut likely = Vec::new();
    for table in 0..2 {
        match world.open(table) {
            Some((_, step)) => likely.extend([(table, step.from), (table, step.to)]),
            None => likely.push((table, world.tables[table].stored)),
        }
    }
    let any = (0usize..2).prop_flat_map(|table| (Just(table), 1..=NEWEST[table]));
    prop_oneof![6 => prop::sample::select(likely), 1 => any].boxed()
}

fn survivors() -> impl Strategy<Value = (u8, Option<u64>)> {
    (any::<u8>(), prop::option::weighted(0.3, any::<u64>()))
}

fn verbs(world: &World) -> BoxedStrategy<Op> {
    let open: Vec<usize> =
        (0..world.migrations.len()).filter(|i| world.tables.iter().any(|t| t.open == Some(*i))).collect();
    let begins: Vec<(usize, u32)> = (0..2)
        .flat_map(|table| (1..=NEWEST[table]).map(move |to| (table, to)))
        .filter(|(table, to)| world.open(*table).is_none() && *to > world.tables[*table].stored)
        .collect();
    let next = world.migrations.len();
    let mut choices: Vec<(u32, BoxedStrategy<Op>)> = Vec::new();
    if !begins.is_empty() {
        let one_way = prop::bool::weighted(0.2);
        let tables = prop::sample::subsequence(begins.clone(), 1..=begins.len().min(2));
        let begin = (tables, one_way).prop_map(move |(tables, one_way)| {
            let mut tables = tables;
            tables.dedup_by_key(|(table, _)| *table);
            Op::Begin { index: next, tables, one_way }
        });
        choices.push((if open.is_empty() { 30 } else { 3 }, begin.boxed()));
    }
    for index in open {
        let records = prop_oneof![3 => 1usize..4, 1 => 4usize..60];
        let step = records.clone().prop_map(move |records| Op::Step { index, records }).boxed();
        let restart = Just(Op::Restart { index }).boxed();
        let abandon = any::<bool>().prop_map(move |keep| Op::Abandon { index, keep }).boxed();
        let resume = Just(Op::Resume { index }).boxed();
        if world.migrations[index].phase == Phase::RolledBack {
            choices.extend([(4, resume), (6, abandon), (1, step), (1, restart)]);
        } else {
            let finish = records.prop_map(move |records| Op::Finish { index, records }).boxed();
            let rollback = any::<bool>().prop_map(move |fenced| Op::Rollback { index, fenced }).boxed();
            let contract =
                prop::bool::weighted(0.8).prop_map(move |code| Op::Contract { index, code }).boxed();
            choices.extend([(12, step), (4, finish), (2, restart), (4, rollback), (5, contract)]);
            choices.extend([(1, abandon), (1, resume), (1, Just(Op::Background { index }).boxed())]);
        }
    }
    // What mostly does not fit.
    if next > 0 {
        let misfit = (0..next, 0usize..7, 1u32..4).prop_map(|(index, verb, to)| match verb {
            0 => Op::Rollback { index, fenced: false },
            1 => Op::Resume { index },
            2 => Op::Restart { index },
            3 => Op::Contract { index, code: true },
            4 => Op::Abandon { index, keep: true },
            5 => Op::Step { index, records: 1 },
            _ => Op::Begin { index, tables: vec![(index % 2, to)], one_way: false },
        });
        choices.push((1, misfit.boxed()));
    }
    proptest::strategy::Union::new_weighted(choices).boxed()
}

/// The next operation.
pub fn ops(state: &Drawn, crashes: bool) -> BoxedStrategy<Op> {
    let (world, keys) = (&state.world, state.setup.keys);
    let views = views(world);
    let key = 0..keys;
    let ends = prop_oneof![Just(Ends::Forward), Just(Ends::Backward), any::<u64>().prop_map(Ends::Both)];
    let put = (views.clone(), key.clone(), fields()).prop_map(|((table, view), key, fields)| Op::Put {
        table,
        key,
        view,
        row: row(table, view, fields),
    });
    let remove =
        (views.clone(), key.clone()).prop_map(|((table, view), key)| Op::Remove { table, key, view });
    let at = (views.clone(), key.clone()).prop_map(|((table, view), key)| (table, key, view));
    let update = (at.clone(), prop::option::weighted(0.8, fields()), any::<bool>());
    let update = update.prop_map(|(at, fields, insert)| {
        let row = fields.map(|fields| row(at.0, at.2, fields));
        Op::Update { at, row, insert }
    });
    let seen = world.clone();
    let swap = (at.clone(), prop::bool::weighted(0.8), fields(), prop::option::weighted(0.8, fields()));
    let swap = swap.prop_map(move |(at, fits, old, new)| {
        let old = match seen.read(at.0, at.1, at.2).first() {
            Some(Answer::Found(row)) if fits => Some(*row),
            Some(Answer::Absent) if fits => None,
            _ => Some(row(at.0, at.2, old)),
        };
        Op::Swap { at, old, new: new.map(|fields| row(at.0, at.2, fields)) }
    });
    let write =
        (at.clone(), prop::option::weighted(0.8, fields())).prop_map(|((table, key, view), fields)| {
            let row = fields.map(|fields| row(table, view, fields));
            Write { table, key, view, row }
        });
    let writes = prop::collection::vec(write, 1..6).prop_map(|mut writes| {
        // Each key once: what two writes of one key come to is not what this is about.
        let mut known = Vec::new();
        writes.retain(|write| {
            let new = !known.contains(&(write.table, write.key));
            known.push((write.table, write.key));
            new
        });
        writes
    });
    let batch = writes.clone().prop_map(|writes| Op::Batch { writes });
    let transaction = (prop::collection::vec(at, 0..3), writes)
        .prop_map(|(reads, writes)| Op::Transaction { reads, writes });
    let get = (views.clone(), key.clone()).prop_map(|((table, view), key)| Op::Get { table, key, view });
    let scan = (views.clone(), key.clone(), 0..=keys, any::<bool>(), ends);
    let scan = scan.prop_map(|((table, view), from, to, inclusive, ends)| Op::Scan {
        table,
        view,
        from,
        to,
        inclusive,
        ends,
    });
    let len = views.prop_map(|(table, view)| Op::Len { table, view });
    let mut choices: Vec<(u32, BoxedStrategy<Op>)> = vec![
        (24, put.boxed()),
        (6, remove.boxed()),
        (4, update.boxed()),
        (3, swap.boxed()),
        (3, batch.boxed()),
        (3, transaction.boxed()),
        (10, get.boxed()),
        (6, scan.boxed()),
        (2, len.boxed()),
        (if state.doomed { 200 } else { 26 }, verbs(world)),
        (1, Just(Op::Flush).boxed()),
        (2, Just(Op::Reopen).boxed()),
    ];
    if crashes {
        choices.push((2, survivors().prop_map(|(share, any)| Op::Crash { share, any }).boxed()));
        let doom = (prop_oneof![0u8..12, 0u8..40], survivors()).prop_map(|(writes, (share, any))| Op::Doom {
            writes,
            share,
            any,
        });
        choices.push((3, doom.boxed()));
    }
    proptest::strategy::Union::new_weighted(choices).boxed()
}

/// What an operation may come to; `None` if it is neither a write nor a verb.
pub fn plan(world: &World, op: &Op, code: [u32; 2]) -> Option<Plan> {
    Some(match op {
        Op::Put { table, key, view, row } => world.put(*table, *key, *view, *row),
        Op::Remove { table, key, view } => world.remove(*table, *key, *view),
        Op::Update { at, row, insert } => world.update(*at, *row, *insert),
        Op::Swap { at, old, new } => world.swap(*at, *old, *new, None),
        Op::Batch { writes } => world.several(&[], writes),
        Op::Transaction { reads, writes } => world.several(reads, writes),
        Op::Begin { index, tables, one_way } => world.begin(*index, tables, *one_way),
        Op::Pause { index, paused } => world.pause(*index, *paused),
        Op::Retune { index, .. } => world.retune(*index),
        Op::Rollback { index, fenced } => world.rollback(*index, *fenced),
        Op::Resume { index } => world.resume(*index),
        Op::Restart { index } => world.restart(*index),
        Op::Contract { index, .. } => world.contract(*index, code),
        Op::Abandon { index, keep } => world.abandon(*index, *keep),
        _ => return None,
    })
}

/// The world after an operation if nothing is lost and every doubt ends well.
pub fn assume(world: &World, op: &Op) -> World {
    let mut after = plan(world, op, NEWEST).and_then(|plan| plan.after).unwrap_or_else(|| world.clone());
    match op {
        Op::Step { index, records } => after.stepped(*index, *records, false),
        Op::Finish { index, .. } | Op::Background { index }
            if world.migrations[*index].phase == Phase::Forward =>
        {
            after.stepped(*index, 0, true);
        }
        _ => {}
    }
    after
}

/// An operation drawn for a world that a crash or a shrink has made another: its migration is the last that there
/// is. `None` if there is none.
pub fn clip(mut op: Op, world: &World) -> Option<Op> {
    let known = world.migrations.len();
    match &mut op {
        Op::Begin { index, .. } => *index = known.min(*index),
        Op::Step { index, .. }
        | Op::Finish { index, .. }
        | Op::Background { index }
        | Op::Pause { index, .. }
        | Op::Retune { index, .. }
        | Op::Rollback { index, .. }
        | Op::Resume { index }
        | Op::Restart { index }
        | Op::Contract { index, .. }
        | Op::Abandon { index, .. } => *index = known.checked_sub(1)?.min(*index),
        _ => {}
    }
    Some(op)
}

pub struct Machine<const CRASHES: bool>;

impl<const CRASHES: bool> ReferenceStateMachine for Machine<CRASHES> {
    type State = Drawn;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Drawn> {
        setups().prop_map(|setup| Drawn { world: World::new(setup.versions), setup, doomed: false }).boxed()
    }

    fn transitions(state: &Drawn) -> BoxedStrategy<Op> {
        ops(state, CRASHES)
    }

    fn apply(mut state: Drawn, op: &Op) -> Drawn {
        if let Some(op) = clip(op.clone(), &state.world) {
            state.doomed = matches!(op, Op::Doom { .. });
            state.world = assume(&state.world, &op);
        }
        state
    }
}
