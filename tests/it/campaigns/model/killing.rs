//! An engine that kills its own process (SIGKILL) at a named point: at the nth call of a kind, before it, while it is
//! under way or after it, while a given verb or a step of the background is at work. No production code knows of it.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use exuvia::engine::{
    Capabilities, Check, Engine, EngineResult, KeyRange, Outcome, Page, Snapshot, Tree, Value, Write,
};

use super::op::Op;
use super::points::Point;

/// What the process is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    Idle,
    Create,
    Open,
    Recover,
    Close,
    Write,
    Several,
    Begin,
    Step,
    Worker,
    Pause,
    Unpause,
    Rollback,
    Resume,
    Restart,
    Contract,
    Discard,
    Fold,
    Flush,
}

impl Stage {
    pub fn of(op: &Op) -> Stage {
        match op {
            Op::Batch { .. } | Op::Transaction { .. } => Stage::Several,
            op if op.is_write() => Stage::Write,
            Op::Begin { .. } => Stage::Begin,
            Op::Step { .. } | Op::Finish { .. } => Stage::Step,
            Op::Pause { paused: true, .. } => Stage::Pause,
            Op::Pause { paused: false, .. } => Stage::Unpause,
            Op::Rollback { .. } => Stage::Rollback,
            Op::Resume { .. } => Stage::Resume,
            Op::Restart { .. } => Stage::Restart,
            Op::Contract { .. } => Stage::Contract,
            Op::Abandon { keep: false, .. } => Stage::Discard,
            Op::Abandon { keep: true, .. } => Stage::Fold,
            Op::Flush => Stage::Flush,
            _ => Stage::Idle,
        }
    }
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    Get,
    Scan,
    Put,
    Delete,
    /// Compare-and-swap: of nothing, of a value by a value, of a value by nothing.
    Insert,
    Replace,
    Remove,
    Commit,
    Flush,
    DropTree,
    /// The opening or listing of trees.
    Look,
}

/// What it is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The catalog's one value: the state of everything.
    State,
    /// How far a backfill has come, and whatever else lies beside the state.
    Progress,
    Ledger,
    Quarantine,
    Records,
    /// The whole engine.
    All,
}

impl What {
    fn of(tree: &str, key: &[u8]) -> What {
        match tree {
            "catalog" if key == b"catalog" => What::State,
            "catalog" => What::Progress,
            "ledger" => What::Ledger,
            name if name.starts_with("quarantine/") => What::Quarantine,
            _ => What::Records,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    /// A moment after it began; it may have ended by then.
    During,
    After,
}

/// A point and how it is met.
#[derive(Debug, Clone)]
pub struct Rule {
    pub point: Point,
    /// From 1.
    pub nth: u64,
    /// How long after its beginning, for [`When::During`].
    pub delay: Duration,
}

#[derive(Clone)]
pub struct Killer(Arc<Shared>);

struct Shared {
    rule: Option<Rule>,
    stage: AtomicU8,
    left: AtomicU64,
    /// Whether the state was committed in this stage.
    committed: AtomicBool,
}

/// The end of this process, at once. The parent is told at which point.
fn die(rule: &Rule) -> ! {
    let mut out = std::io::stdout().lock();
    // If nobody listens any more there is nobody to be told.
    let _ = out.write_all(format!("\nat {}\n", rule.point.name).as_bytes());
    let _ = out.flush();
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

impl Killer {
    pub fn new(rule: Option<Rule>) -> Self {
        let left = AtomicU64::new(rule.as_ref().map_or(0, |rule| rule.nth));
        let (stage, committed) = (AtomicU8::new(Stage::Idle as u8), AtomicBool::new(false));
        Killer(Arc::new(Shared { rule, stage, left, committed }))
    }

    pub fn over(&self, inner: Arc<dyn Engine>) -> Arc<dyn Engine> {
        Arc::new(Killing { inner, killer: self.clone() })
    }

    pub fn stage(&self, stage: Stage) {
        if self.0.stage.swap(stage as u8, Ordering::SeqCst) != stage as u8 {
            self.0.committed.store(false, Ordering::SeqCst);
        }
    }

    fn is_due(&self, when: When, did: Did, what: What) -> Option<&Rule> {
        let rule = self.0.rule.as_ref()?;
        let Point { stage, thread, calls, on, when: wanted, after_commit, .. } = &rule.point;
        let here = std::thread::current();
        let fits = *wanted == when
            && self.0.stage.load(Ordering::SeqCst) == *stage as u8
            && (calls.is_empty() || calls.contains(&did))
            && on.is_none_or(|on| on == what)
            && (!after_commit || self.0.committed.load(Ordering::SeqCst))
            && thread.is_none_or(|name| here.name() == Some(name));
        // The count goes below zero once the point was met: it is not met again.
        (fits && self.0.left.fetch_sub(1, Ordering::SeqCst) == 1).then_some(rule)
    }

    fn around<R>(&self, did: Did, what: What, call: impl FnOnce() -> EngineResult<R>) -> EngineResult<R> {
        if let Some(rule) = self.is_due(When::Before, did, what) {
            die(rule);
        }
        if let Some(rule) = self.is_due(When::During, did, what).cloned() {
            std::thread::spawn(move || {
                std::thread::sleep(rule.delay);
                die(&rule);
            });
        }
        let result = call();
        if did == Did::Replace && what == What::State {
            self.0.committed.store(true, Ordering::SeqCst);
        }
        if let Some(rule) = self.is_due(When::After, did, what) {
            die(rule);
        }
        result
    }
}

struct Killing {
    inner: Arc<dyn Engine>,
    killer: Killer,
}

struct KillingTree {
    name: String,
    inner: Arc<dyn Tree>,
    killer: Killer,
}

impl KillingTree {
    fn around<R>(&self, did: Did, key: &[u8], call: impl FnOnce() -> EngineResult<R>) -> EngineResult<R> {
        self.killer.around(did, What::of(&self.name, key), call)
    }
}

impl Tree for KillingTree {
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        self.around(Did::Get, key, || self.inner.get(key))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> EngineResult<()> {
        self.around(Did::Put, key, || self.inner.put(key, value))
    }

    fn delete(&self, key: &[u8]) -> EngineResult<()> {
        self.around(Did::Delete, key, || self.inner.delete(key))
    }

    fn compare_and_swap(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> EngineResult<bool> {
        let did = match (old, new) {
            (None, _) => Did::Insert,
            (Some(_), Some(_)) => Did::Replace,
            (Some(_), None) => Did::Remove,
        };
        self.around(did, key, || self.inner.compare_and_swap(key, old, new))
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        self.around(Did::Scan, b"", || self.inner.scan(range, reverse, limit, page))
    }
}

impl Engine for Killing {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        let inner = self.killer.around(Did::Look, What::of(name, b""), || self.inner.tree(name))?;
        Ok(Arc::new(KillingTree { name: name.to_owned(), inner, killer: self.killer.clone() }))
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        self.killer.around(Did::Look, What::All, || self.inner.trees())
    }

    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        self.killer.around(Did::DropTree, What::of(name, b""), || self.inner.drop_tree(name))
    }

    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        let quarantine = writes.iter().any(|write| write.tree.starts_with("quarantine/"));
        let what = if quarantine { What::Quarantine } else { What::Records };
        self.killer.around(Did::Commit, what, || self.inner.commit(checks, writes))
    }

    fn flush(&self) -> EngineResult<()> {
        self.killer.around(Did::Flush, What::All, || self.inner.flush())
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn snapshot(&self) -> EngineResult<Option<Arc<dyn Snapshot>>> {
        self.inner.snapshot()
    }

    fn is_pressed(&self) -> bool {
        self.inner.is_pressed()
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        self.inner.bytes_on_disk()
    }
}
