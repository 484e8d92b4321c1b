//! What the threads of a run do: drawn from its seed, around one theme each.

use super::model::{KEYS, Verb};
use super::world::{Action, Layout, Part};

/// xorshift64*.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        // SplitMix64, so that seeds that follow one another have nothing in common.
        let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((z ^ (z >> 31)) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((self.number() >> 33) as usize) % n
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// What the verbs of a run are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// A migration begins, and the backfill does its work.
    Begin,
    /// Rollback and resume, over and over.
    Turn,
    /// Contract, with old writers until the last moment, and its sweep.
    Contract,
    /// Contract beside rollback: one wins.
    Race,
    /// Abandon, new writes kept: folding.
    Fold,
    /// Abandon, new writes discarded.
    Discard,
    /// Restart of the backfill.
    Restart,
    /// The next migration, on what an unfinished sweep left.
    Next,
    /// Close beside all that.
    Close,
    /// A loss of power in the middle of it.
    Crash,
}

impl Theme {
    pub const ALL: [Theme; 10] = [
        Theme::Begin,
        Theme::Turn,
        Theme::Contract,
        Theme::Race,
        Theme::Fold,
        Theme::Discard,
        Theme::Restart,
        Theme::Next,
        Theme::Close,
        Theme::Crash,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Theme::Begin => "begin",
            Theme::Turn => "turn",
            Theme::Contract => "contract",
            Theme::Race => "race",
            Theme::Fold => "fold",
            Theme::Discard => "discard",
            Theme::Restart => "restart",
            Theme::Next => "next",
            Theme::Close => "close",
            Theme::Crash => "crash",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Program {
    pub theme: Theme,
    pub layout: Layout,
    /// Which keys are there at first.
    pub loaded: [bool; KEYS],
    /// The table is at version 2 already, with an unfinished sweep.
    pub second: bool,
    /// Done before the threads start.
    pub before: Vec<Action>,
    pub threads: Vec<(String, Vec<Action>)>,
    /// Every write is flushed before it returns.
    pub flushed: bool,
}

const BEGIN: Action = Action::Verb(Verb::Begin { to: 2 });
const BACK: Action = Action::Verb(Verb::Rollback { fenced: false });
const FENCED: Action = Action::Verb(Verb::Rollback { fenced: true });
const RESUME: Action = Action::Verb(Verb::Resume);
const RESTART: Action = Action::Verb(Verb::Restart);
const CONTRACT: Action = Action::Verb(Verb::Contract);
const KEEP: Action = Action::Verb(Verb::AbandonKeep);
const DISCARD: Action = Action::Verb(Verb::AbandonDiscard);
const WAIT: Action = Action::Wait;

impl Program {
    pub fn draw(theme: Theme, rng: &mut Rng) -> Program {
        let second = theme == Theme::Next;
        let mut before = Vec::new();
        let operators = operators(theme, rng, &mut before);
        let views: [u32; 2] = if second { [2, 3] } else { [1, 2] };
        let mut threads: Vec<(String, Vec<Action>)> =
            operators.into_iter().enumerate().map(|(n, verbs)| (format!("operator {n}"), verbs)).collect();
        for client in 0..2 + rng.below(2) {
            let actions = (0..1 + rng.below(4)).map(|_| client_action(rng, views)).collect();
            threads.push((format!("client {client}"), actions));
        }
        let layout = if rng.chance(3) { Layout::TwoTables } else { Layout::OneTable };
        let loaded = *rng.pick(&[[true, true], [true, true], [true, false], [false, true], [false, false]]);
        // Native forms of both sides, and tombstones, from the start.
        for _ in 0..rng.below(3) {
            before.push(client_action(rng, views));
        }
        Program {
            theme,
            layout,
            loaded,
            second,
            before,
            threads,
            flushed: theme == Theme::Crash || rng.chance(8),
        }
    }
}

/// The verbs, by thread; what is to be done before goes to `before`.
fn operators(theme: Theme, rng: &mut Rng, before: &mut Vec<Action>) -> Vec<Vec<Action>> {
    match theme {
        Theme::Begin => vec![vec![BEGIN, WAIT]],
        Theme::Turn => {
            before.push(BEGIN);
            let back = |rng: &mut Rng| if rng.chance(2) { BACK } else { FENCED };
            vec![vec![back(rng), RESUME, back(rng), RESUME]]
        }
        Theme::Contract => {
            before.push(BEGIN);
            if rng.chance(2) {
                before.push(WAIT);
            }
            vec![vec![WAIT, CONTRACT]]
        }
        Theme::Race => {
            before.extend([BEGIN, WAIT]);
            let other =
                rng.pick(&[vec![BACK, RESUME], vec![RESTART], vec![CONTRACT], vec![BACK, KEEP]]).clone();
            vec![vec![CONTRACT], other]
        }
        Theme::Fold => {
            before.push(BEGIN);
            if rng.chance(2) {
                before.push(WAIT);
            }
            let mut verbs = vec![BACK, KEEP];
            if rng.chance(2) {
                verbs.push(BEGIN);
            }
            vec![verbs]
        }
        Theme::Discard => {
            before.push(BEGIN);
            let mut verbs = vec![BACK, DISCARD];
            if rng.chance(2) {
                verbs.push(BEGIN);
            }
            vec![verbs]
        }
        Theme::Restart => {
            before.push(BEGIN);
            if rng.chance(2) {
                before.push(WAIT);
            }
            let more =
                rng.pick(&[vec![], vec![WAIT], vec![RESTART], vec![WAIT, CONTRACT], vec![BACK]]).clone();
            vec![[vec![RESTART], more].concat()]
        }
        Theme::Next => vec![vec![Action::Verb(Verb::Begin { to: 3 }), WAIT, CONTRACT]],
        Theme::Close => {
            let verbs = rng
                .pick(&[
                    vec![BEGIN, BACK],
                    vec![BEGIN, WAIT, CONTRACT],
                    vec![BEGIN, BACK, KEEP],
                    vec![BEGIN, RESTART],
                ])
                .clone();
            vec![verbs, vec![Action::Close]]
        }
        Theme::Crash => {
            let verbs = rng
                .pick(&[
                    vec![BEGIN, BACK, RESUME],
                    vec![BEGIN, WAIT, CONTRACT],
                    vec![BEGIN, BACK, KEEP, BEGIN],
                    vec![BEGIN, BACK, DISCARD],
                    vec![BEGIN, WAIT, RESTART, WAIT],
                ])
                .clone();
            vec![verbs]
        }
    }
}

fn client_action(rng: &mut Rng, views: [u32; 2]) -> Action {
    let (key, view) = (rng.below(KEYS), *rng.pick(&views));
    match rng.below(22) {
        0..5 => Action::Get { key, view },
        5..11 => Action::Put { key, view, bare: rng.chance(3) },
        11..13 => Action::Remove { key, view },
        13 => Action::Update { key, view },
        14 => Action::InsertIfAbsent { key, view },
        15 => Action::Swap { key, view },
        16..18 => Action::Scan { view, reverse: rng.chance(3) },
        18..20 => {
            let parts = (0..1 + rng.below(3)).map(|_| {
                let (key, view) = (rng.below(KEYS), *rng.pick(&views));
                match rng.below(5) {
                    0..2 => Part::Read { key, view },
                    2..4 => Part::Put { key, view },
                    _ => Part::Remove { key, view },
                }
            });
            Action::Transaction(parts.collect())
        }
        20 => {
            let writes = (0..1 + rng.below(3)).map(|_| (rng.below(KEYS), *rng.pick(&views), rng.chance(4)));
            Action::Batch(writes.collect())
        }
        _ => Action::Flush,
    }
}
