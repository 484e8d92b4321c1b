//! The damaged engine that is read: always a copy of its files, made anew when the engine has stopped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::copies::around::{self, Hole};
use crate::engine::own_file;
use crate::engine::{Engine, EngineKind, EngineResult, Value};
use crate::error::{EngineError, EngineErrorKind, Result};

/// How often the files are copied anew. A damaged page may stop sled for good; each that does costs three copies.
const COPIES_MAX: u32 = 60;
const CACHE_BYTES: u64 = 64 << 20;

/// What sled may be opened without, to read what it then can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Cut {
    Nothing,
    /// The mark of what was flushed: damage ends the log, or a segment of it.
    Mark,
    /// Its snapshot, too: it reads its log from the start, up to the first damage.
    Snapshot,
}

impl Cut {
    fn keeps(self, name: &str) -> bool {
        match self {
            Self::Nothing => true,
            Self::Mark => !name.starts_with("synced."),
            Self::Snapshot => !name.starts_with("synced.") && !name.starts_with("snap."),
        }
    }
}

pub(super) struct Source {
    kind: EngineKind,
    files: PathBuf,
    /// For the copies.
    work: PathBuf,
    copies: u32,
    engine: Option<Arc<dyn Engine>>,
    /// What sled does without: see [`Cut`].
    cut: Cut,
}

impl Source {
    /// `files`: the engine's directory; only read.
    pub(super) fn open(kind: EngineKind, files: &Path, work: PathBuf) -> EngineResult<Self> {
        let mut source =
            Self { kind, files: files.to_owned(), work, copies: 0, engine: None, cut: Cut::Nothing };
        for cut in [Cut::Mark, Cut::Snapshot] {
            if source.engine().is_ok() || kind != EngineKind::Sled {
                break;
            }
            source.cut = cut;
        }
        source.engine()?;
        Ok(source)
    }

    /// Whether what is read may be the store of an earlier moment.
    pub(super) fn is_cut(&self) -> bool {
        self.cut != Cut::Nothing
    }

    fn engine(&mut self) -> EngineResult<Arc<dyn Engine>> {
        if let Some(engine) = &self.engine {
            return Ok(Arc::clone(engine));
        }
        if self.copies == COPIES_MAX {
            let reason =
                format!("the engine stopped {COPIES_MAX} times at damage, and is not asked any more");
            return Err(EngineError::new(EngineErrorKind::Corrupt, reason));
        }
        self.copies += 1;
        let copied = self.copy(|name| self.cut.keeps(name))?;
        let engine = self.kind.open_with(&copied, CACHE_BYTES, true).map_err(engine_error)?;
        self.engine = Some(Arc::clone(&engine));
        Ok(engine)
    }

    fn copy(&self, wanted: impl Fn(&str) -> bool) -> EngineResult<PathBuf> {
        let io = |e| EngineError::io("the damaged files cannot be copied to be read", e);
        // An engine that has stopped may still have the last copy open.
        let last = self.work.join((self.copies - 1).to_string());
        let _not_the_first = fs::remove_dir_all(last);
        let to = self.work.join(self.copies.to_string());
        copy_below(&self.files, &to, &wanted).map_err(io)?;
        Ok(to)
    }

    /// A call of the engine. One that stops the engine, and one that finds it stopped, is an answer about this call
    /// only: the next finds a fresh one.
    pub(super) fn call<T>(
        &mut self,
        call: &mut dyn FnMut(&dyn Engine) -> EngineResult<T>,
    ) -> EngineResult<T> {
        let mut engine = self.engine()?;
        let mut answer = call(&*engine);
        if stopped(&answer) {
            // By an earlier call.
            self.engine = None;
            drop(engine);
            engine = self.engine()?;
            answer = call(&*engine);
        }
        answer.map_err(|e| match e.kind() {
            EngineErrorKind::Poisoned => EngineError::new(EngineErrorKind::Corrupt, e.to_string()),
            _ => e,
        })
    }

    pub(super) fn get(&mut self, tree: &str, key: &[u8]) -> EngineResult<Option<Value>> {
        self.call(&mut |engine| engine.tree(tree)?.get(key))
    }

    pub(super) fn trees(&mut self) -> EngineResult<Vec<String>> {
        self.call(&mut |engine| engine.trees())
    }

    /// Everything that a tree holds and that can be read, all of it before anything else is asked of the source; `call`
    /// gets no engine.
    pub(super) fn each(
        source: &std::cell::RefCell<Source>,
        tree: &str,
        call: &mut dyn FnMut(&[u8], Value) -> Result<()>,
    ) -> Result<Vec<Hole>> {
        around::each(
            &mut |range, reverse, limit, page| {
                source.borrow_mut().call(&mut |engine| {
                    page.clear();
                    engine.tree(tree)?.scan(range, reverse, limit, page)
                })
            },
            call,
        )
    }
}

fn stopped<T>(answer: &EngineResult<T>) -> bool {
    answer.as_ref().is_err_and(|e| e.kind() == EngineErrorKind::Poisoned)
}

fn engine_error(error: crate::error::Error) -> EngineError {
    match error {
        crate::error::Error::Engine(e) => e,
        other => EngineError::new(EngineErrorKind::Corrupt, other.to_string()),
    }
}

fn copy_below(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> io::Result<()> {
    own_file::create_directory(to, true)?;
    for entry in from.read_dir()? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if kind.is_dir() {
            copy_below(&entry.path(), &to.join(&name), wanted)?;
        } else if kind.is_file() && name.to_str().is_none_or(wanted) {
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}
