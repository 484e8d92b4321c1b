//! An engine that can be watched and disturbed: around [`MemoryEngine`], with hooks before and after calls,
//! counts, injected errors and death. It makes interleavings deterministic: a hook runs a whole operation of
//! somebody else at one exact point of ours.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use exuvia::engine::{
    Capabilities, Check, Engine, EngineResult, KeyRange, MemoryEngine, Outcome, Page, Snapshot, Tree, Value,
};
use exuvia::engine::{EngineError, EngineErrorKind};

use crate::kit::mirror::Mirror;

/// The kinds of engine calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Get,
    Put,
    Delete,
    Cas,
    Scan,
    Open,
    List,
    Drop,
    Commit,
    Flush,
    Snapshot,
}

impl Call {
    fn writes(self) -> bool {
        matches!(self, Call::Put | Call::Delete | Call::Cas | Call::Commit | Call::Drop)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    After,
}

enum Action {
    Run(Box<dyn FnOnce() + Send>),
    Fail(EngineErrorKind),
    /// This call and all after it fail with an error of this kind; before long the engine gives up, or a worker
    /// would try again for ever.
    FailOn(EngineErrorKind),
    /// This call and all after it fail: the process is dead to its disk.
    Die,
}

struct Rule {
    when: When,
    call: Option<Call>,
    tree: String,
    key: Option<Vec<u8>>,
    left: u64,
    action: Action,
}

type Watcher = Arc<dyn Fn(Call, &str) + Send + Sync>;

#[derive(Default)]
struct Hooks {
    /// The tree whose next scan answers an empty page that is not the end.
    blank: Mutex<Option<String>>,
    rules: Mutex<Vec<Rule>>,
    counts: Mutex<BTreeMap<(Call, String), u64>>,
    watcher: Mutex<Option<Watcher>>,
    page_max: AtomicU64,
    commit_max: AtomicU64,
    dead: AtomicBool,
    /// With what, and how often still before the engine gives up.
    failing: Mutex<Option<(EngineErrorKind, u32)>>,
    /// The first call that was made to fail.
    failed: Mutex<Option<(Call, String)>>,
    /// Conditional writes until one is answered by a conflict; 0: none will be.
    conflict_in: AtomicU64,
    snapshots: AtomicBool,
}

thread_local! {
    static IN_WATCHER: Cell<bool> = const { Cell::new(false) };
}

/// `*` alone or at the end stands for anything.
fn fits(pattern: &str, tree: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => tree.starts_with(start),
        None => pattern == tree,
    }
}

impl Hooks {
    fn take(&self, when: When, call: Call, trees: &[&str], key: Option<&[u8]>) -> Vec<Action> {
        let mut rules = self.rules.lock().unwrap();
        let mut due = Vec::new();
        let mut at = 0;
        while at < rules.len() {
            let rule = &mut rules[at];
            let hit = rule.when == when
                && rule.call.is_none_or(|c| c == call)
                && (trees.iter().any(|tree| fits(&rule.tree, tree)) || rule.tree == "*")
                && rule.key.as_deref().is_none_or(|k| Some(k) == key);
            if hit {
                rule.left -= 1;
                if rule.left == 0 {
                    due.push(rules.remove(at).action);
                    continue;
                }
            }
            at += 1;
        }
        due
    }

    fn dead(&self) -> EngineResult<()> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(EngineError::new(EngineErrorKind::Poisoned, "the process is dead to its disk"));
        }
        match &mut *self.failing.lock().unwrap() {
            Some((kind, left)) => {
                let kind = if *left == 0 { EngineErrorKind::Poisoned } else { *kind };
                *left = left.saturating_sub(1);
                Err(EngineError::new(kind, "injected, again"))
            }
            None => Ok(()),
        }
    }

    /// Whether it is this conditional write's turn to meet a conflict.
    fn conflicts(&self, call: Call, tree: &str) -> bool {
        let turn = |left: u64| left.checked_sub(1);
        let hit = self.conflict_in.fetch_update(Ordering::SeqCst, Ordering::SeqCst, turn) == Ok(1);
        if hit {
            self.failed.lock().unwrap().get_or_insert((call, tree.to_owned()));
        }
        hit
    }

    fn act(&self, actions: Vec<Action>) -> EngineResult<()> {
        for action in actions {
            match action {
                Action::Run(run) => run(),
                Action::Fail(kind) => return Err(EngineError::new(kind, "injected")),
                Action::FailOn(kind) => *self.failing.lock().unwrap() = Some((kind, 3)),
                Action::Die => self.dead.store(true, Ordering::SeqCst),
            }
        }
        self.dead()
    }

    fn note<R>(&self, call: Call, trees: &[&str], result: EngineResult<R>) -> EngineResult<R> {
        if result.is_err() {
            self.failed.lock().unwrap().get_or_insert_with(|| (call, trees.join(" ")));
        }
        result
    }

    fn around<R>(
        &self,
        call: Call,
        trees: &[&str],
        key: Option<&[u8]>,
        run: impl FnOnce() -> EngineResult<R>,
    ) -> EngineResult<R> {
        self.dead()?;
        *self.counts.lock().unwrap().entry((call, trees.join(" "))).or_default() += 1;
        self.note(call, trees, self.act(self.take(When::Before, call, trees, key)))?;
        let watcher = self.watcher.lock().unwrap().clone();
        if let Some(watcher) = watcher
            && !IN_WATCHER.get()
        {
            IN_WATCHER.set(true);
            watcher(call, trees.first().unwrap_or(&""));
            IN_WATCHER.set(false);
        }
        let result = run()?;
        self.note(call, trees, self.act(self.take(When::After, call, trees, key)))?;
        Ok(result)
    }
}

/// The engine. Clones share everything.
#[derive(Clone)]
pub struct HookEngine {
    inner: Mirror,
    hooks: Arc<Hooks>,
}

struct HookTree {
    name: String,
    inner: Arc<dyn Tree>,
    hooks: Arc<Hooks>,
}

impl HookEngine {
    pub fn new(inner: MemoryEngine) -> Self {
        Self { inner: Mirror::of(inner), hooks: Arc::default() }
    }

    /// Over an engine with files, with what its directory holds.
    pub fn on_disk(kind: exuvia::engine::EngineKind, directory: &std::path::Path) -> Self {
        Self { inner: Mirror::on_disk(kind, directory), hooks: Arc::default() }
    }

    /// How many engines and trees of this engine somebody holds.
    pub fn handles(&self) -> usize {
        Arc::strong_count(&self.hooks)
    }

    /// The engine in memory, past all hooks: to be looked at, and for crash images.
    pub fn inner(&self) -> &MemoryEngine {
        &self.inner.memory
    }

    /// A tree past all hooks, to be written to.
    pub fn raw(&self, tree: &str) -> Arc<dyn Tree> {
        self.inner.tree(tree).unwrap()
    }

    fn rule(&self, when: When, call: Option<Call>, tree: &str, key: Option<u64>, nth: u64, action: Action) {
        let key = key.map(|id| id.to_be_bytes().to_vec());
        let rule = Rule { when, call, tree: tree.to_owned(), key, left: nth, action };
        self.hooks.rules.lock().unwrap().push(rule);
    }

    /// Runs `run` before the `nth` call (from now, from 1) of this kind on a tree of this name.
    pub fn before(&self, call: Call, tree: &str, nth: u64, run: impl FnOnce() + Send + 'static) {
        self.rule(When::Before, Some(call), tree, None, nth, Action::Run(Box::new(run)));
    }

    /// As [`before`](Self::before), of calls for one key only.
    pub fn before_key(&self, call: Call, tree: &str, key: u64, run: impl FnOnce() + Send + 'static) {
        self.rule(When::Before, Some(call), tree, Some(key), 1, Action::Run(Box::new(run)));
    }

    /// Runs `run` after the `nth` call.
    pub fn after(&self, call: Call, tree: &str, nth: u64, run: impl FnOnce() + Send + 'static) {
        self.rule(When::After, Some(call), tree, None, nth, Action::Run(Box::new(run)));
    }

    /// As [`after`](Self::after), of calls for one key only.
    pub fn after_key(&self, call: Call, tree: &str, key: u64, run: impl FnOnce() + Send + 'static) {
        self.rule(When::After, Some(call), tree, Some(key), 1, Action::Run(Box::new(run)));
    }

    /// Lets the `nth` call fail, once; nothing is done by it.
    pub fn fail(&self, call: Call, tree: &str, nth: u64) {
        self.rule(When::Before, Some(call), tree, None, nth, Action::Fail(EngineErrorKind::Io));
    }

    /// Lets the next scan of a tree answer an empty page that is not the end.
    pub fn blank(&self, tree: &str) {
        *self.hooks.blank.lock().unwrap() = Some(tree.to_owned());
    }

    /// As [`fail`](Self::fail), with an error of this kind.
    pub fn fail_as(&self, call: Call, tree: &str, nth: u64, kind: EngineErrorKind) {
        self.rule(When::Before, Some(call), tree, None, nth, Action::Fail(kind));
    }

    /// Lets the `nth` call be done, and answer that it failed.
    pub fn fail_after(&self, call: Call, tree: &str, nth: u64) {
        self.rule(When::After, Some(call), tree, None, nth, Action::Fail(EngineErrorKind::Io));
    }

    /// Lets the `nth` call of any kind fail, once.
    pub fn fail_any(&self, nth: u64) {
        self.rule(When::Before, None, "*", None, nth, Action::Fail(EngineErrorKind::Io));
    }

    /// Lets the `nth` call of any kind fail with an error of this kind, and, if `on`, everything after it too.
    pub fn fail_with(&self, nth: u64, kind: EngineErrorKind, on: bool) {
        let action = if on { Action::FailOn(kind) } else { Action::Fail(kind) };
        self.rule(When::Before, None, "*", None, nth, action);
    }

    /// Lets the `nth` call of any kind be done, and answer that it failed.
    pub fn fail_any_after(&self, nth: u64, kind: EngineErrorKind) {
        self.rule(When::After, None, "*", None, nth, Action::Fail(kind));
    }

    /// Answers the `nth` commit with checks, or compare-and-swap of a value, by a conflict; 0: none
    /// any more. Answers how far it was to the one that was asked for before.
    pub fn conflict(&self, nth: u64) -> u64 {
        self.hooks.conflict_in.swap(nth, Ordering::SeqCst)
    }

    /// The first call that was made to fail, and the trees it was for; forgotten by this.
    pub fn failed(&self) -> Option<(Call, String)> {
        self.hooks.failed.lock().unwrap().take()
    }

    /// From the next open on there are snapshots: copies of everything.
    pub fn with_snapshots(self) -> Self {
        self.hooks.snapshots.store(true, Ordering::SeqCst);
        self
    }

    /// The `nth` call of any kind, and everything after it, fails.
    pub fn die_at(&self, nth: u64) {
        self.rule(When::Before, None, "*", None, nth, Action::Die);
    }

    /// Everything fails from here on.
    pub fn die(&self) {
        self.hooks.dead.store(true, Ordering::SeqCst);
    }

    /// Runs `watcher` before every call, but not before calls that the watcher's own thread makes in it.
    pub fn watch(&self, watcher: impl Fn(Call, &str) + Send + Sync + 'static) {
        *self.hooks.watcher.lock().unwrap() = Some(Arc::new(watcher));
    }

    /// Ends the watch, and waits for a watcher that is at work.
    pub fn unwatch(&self) {
        let watcher = self.hooks.watcher.lock().unwrap().take();
        while watcher.as_ref().is_some_and(|watcher| Arc::strong_count(watcher) > 1) {
            thread::yield_now();
        }
    }

    /// Forgets hooks that did not come to pass; answers how many.
    pub fn clear(&self) -> usize {
        self.hooks.rules.lock().unwrap().drain(..).count()
    }

    /// Sets all counts to zero.
    pub fn reset(&self) {
        self.hooks.counts.lock().unwrap().clear();
        for number in [&self.hooks.page_max, &self.hooks.commit_max] {
            number.store(0, Ordering::SeqCst);
        }
    }

    /// The largest page that a scan asked for, and the most writes in a commit, since the last reset.
    pub fn largest(&self) -> (u64, u64) {
        (self.hooks.page_max.load(Ordering::SeqCst), self.hooks.commit_max.load(Ordering::SeqCst))
    }

    fn sum(&self, wanted: impl Fn(Call, &str) -> bool) -> u64 {
        let counts = self.hooks.counts.lock().unwrap();
        counts.iter().filter(|((call, trees), _)| wanted(*call, trees)).map(|(_, n)| n).sum()
    }

    /// Calls of this kind on trees of this name since the last reset.
    pub fn count(&self, call: Call, tree: &str) -> u64 {
        self.sum(|c, trees| c == call && trees.split(' ').any(|t| fits(tree, t)))
    }

    /// Calls of any kind that write to trees of this name since the last reset.
    pub fn writes(&self, tree: &str) -> u64 {
        self.sum(|c, trees| c.writes() && trees.split(' ').any(|t| fits(tree, t)))
    }

    /// All counts, by kind: for comparing two runs.
    pub fn profile(&self) -> BTreeMap<Call, u64> {
        let mut profile = BTreeMap::new();
        for ((call, _), n) in self.hooks.counts.lock().unwrap().iter() {
            *profile.entry(*call).or_default() += n;
        }
        profile
    }

    /// A tree's records as they are, past all hooks.
    pub fn dump(&self, tree: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        if !self.inner.trees().unwrap().iter().any(|name| name == tree) {
            return BTreeMap::new();
        }
        let mut page = Page::new();
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        self.inner.tree(tree).unwrap().scan(all, false, usize::MAX, &mut page).unwrap();
        page.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    /// The names of the trees that hold records, past all hooks.
    pub fn record_trees(&self) -> Vec<String> {
        let mut trees = self.inner.trees().unwrap();
        trees.retain(|name| name.starts_with(|c: char| c.is_ascii_digit()));
        trees.sort();
        trees
    }
}

impl Tree for HookTree {
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        self.hooks.around(Call::Get, &[&self.name], Some(key), || self.inner.get(key))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> EngineResult<()> {
        self.hooks.around(Call::Put, &[&self.name], Some(key), || self.inner.put(key, value))
    }

    fn delete(&self, key: &[u8]) -> EngineResult<()> {
        self.hooks.around(Call::Delete, &[&self.name], Some(key), || self.inner.delete(key))
    }

    fn compare_and_swap(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> EngineResult<bool> {
        let call = || {
            if old.is_some() && self.hooks.conflicts(Call::Cas, &self.name) {
                return Ok(false);
            }
            self.inner.compare_and_swap(key, old, new)
        };
        self.hooks.around(Call::Cas, &[&self.name], Some(key), call)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        if self.hooks.blank.lock().unwrap().take_if(|tree| *tree == self.name).is_some() {
            return Ok(false);
        }
        self.hooks.page_max.fetch_max(limit as u64, Ordering::SeqCst);
        let call = || self.inner.scan(range, reverse, limit, page);
        self.hooks.around(Call::Scan, &[&self.name], None, call)
    }
}

/// Everything as it was, in a store of its own.
struct HookSnapshot {
    copy: MemoryEngine,
    hooks: Arc<Hooks>,
}

impl Snapshot for HookSnapshot {
    fn get(&self, tree: &str, key: &[u8]) -> EngineResult<Option<Value>> {
        self.hooks.around(Call::Get, &[tree], Some(key), || self.copy.tree(tree)?.get(key))
    }

    fn scan(
        &self,
        tree: &str,
        range: KeyRange<'_>,
        reverse: bool,
        limit: usize,
        page: &mut Page,
    ) -> EngineResult<bool> {
        let call = || self.copy.tree(tree)?.scan(range, reverse, limit, page);
        self.hooks.around(Call::Scan, &[tree], None, call)
    }
}

impl Engine for HookEngine {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        let inner = self.hooks.around(Call::Open, &[name], None, || self.inner.tree(name))?;
        Ok(Arc::new(HookTree { name: name.to_owned(), inner, hooks: Arc::clone(&self.hooks) }))
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        self.hooks.around(Call::List, &[], None, || self.inner.trees())
    }

    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        self.hooks.around(Call::Drop, &[name], None, || self.inner.drop_tree(name))
    }

    fn commit(&self, checks: &[Check], writes: &[exuvia::engine::Write]) -> EngineResult<Outcome> {
        let trees: Vec<&str> = writes.iter().map(|write| write.tree.as_str()).collect();
        self.hooks.commit_max.fetch_max(writes.len() as u64, Ordering::SeqCst);
        let key = writes.first().map(|write| write.key.as_slice());
        self.hooks.around(Call::Commit, &trees, key, || {
            if !checks.is_empty() && self.hooks.conflicts(Call::Commit, &trees.join(" ")) {
                return Ok(Outcome::Conflict);
            }
            self.inner.commit(checks, writes)
        })
    }

    fn snapshot(&self) -> EngineResult<Option<Arc<dyn Snapshot>>> {
        if !self.capabilities().snapshots {
            return Ok(None);
        }
        let copy = || Ok(self.inner.memory.crash_image(|_| true));
        let copy = self.hooks.around(Call::Snapshot, &[], None, copy)?;
        Ok(Some(Arc::new(HookSnapshot { copy, hooks: Arc::clone(&self.hooks) })))
    }

    fn flush(&self) -> EngineResult<()> {
        self.hooks.around(Call::Flush, &[], None, || self.inner.flush())
    }

    fn capabilities(&self) -> Capabilities {
        let snapshots = self.hooks.snapshots.load(Ordering::SeqCst);
        Capabilities { snapshots, ..self.inner.capabilities() }
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        self.inner.bytes_on_disk()
    }
}

/// How long something that must not wait may take on a busy machine, before it counts as blocked.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `work` in another thread; panics, saying `what`, if it does not end. What it panics with is passed on.
pub fn elsewhere<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (send, receive) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        let _ = send.send(work());
    });
    match receive.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what}: blocked"),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
    }
}

/// Work that a hook starts beside the call that it hangs on. It may have to wait for that call's own verb: the
/// hook gives it a moment, goes on, and the test takes its result in the end.
pub struct Beside<R>(Arc<Mutex<Option<thread::JoinHandle<R>>>>);

impl<R: Send + 'static> Beside<R> {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// The hook.
    pub fn hook(&self, work: impl FnOnce() -> R + Send + 'static) -> impl FnOnce() + Send + 'static {
        let handle = Arc::clone(&self.0);
        move || {
            let thread = thread::spawn(work);
            for _ in 0..30 {
                if !thread.is_finished() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            *handle.lock().unwrap() = Some(thread);
        }
    }

    /// The result of the work; panics if the hook was not reached.
    pub fn join(&self) -> R {
        let thread = self.0.lock().unwrap().take().expect("the hook was reached");
        elsewhere("what a hook started", move || thread.join().unwrap())
    }
}
