//! How a store is opened.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::SAVED_BYTES_MAX;
use crate::measure::observe::Observer;
use crate::pace::Budget;
use crate::state::settings::{Durability, Settings};

#[cfg(any(feature = "sled", feature = "fjall"))]
use crate::engine::EngineKind;

/// Options of a store; made by `Store::options()`, ended by `open`, or by [`Options::open_in`].
#[must_use = "options do nothing until `open` is called"]
#[derive(Clone)]
pub struct Options {
    pub(crate) settings: Settings,
    pub(crate) cache_bytes: u64,
    pub(crate) create: bool,
    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub(crate) engine: Option<EngineKind>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: Settings {
                durability: Durability::default(),
                budget: Budget::default(),
                free_bytes_min: 256 << 20,
                observer: None,
                observe_pauses_from: Duration::from_micros(100),
                background: true,
                read_only: false,
                private: true,
                check_writes: cfg!(debug_assertions),
                saved_bytes_max: SAVED_BYTES_MAX,
            },
            cache_bytes: 256 << 20,
            create: true,
            #[cfg(any(feature = "sled", feature = "fjall"))]
            engine: None,
        }
    }
}

impl Options {
    /// When a write is safe. Default: buffered, 500 ms.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// Bytes of cache for the engine. Default: 256 MiB. While a migration is open its tables are there twice, and what of
    /// them does not fit is read from the disk (docs/performance.md has what that costs).
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// The budget that migrations of this store start with. Default: pauses of 1 ms.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.settings.budget = budget;
        self
    }

    /// Free bytes on the medium below which a backfill pauses by itself. Default: 256 MiB. Zero: never.
    pub fn free_bytes_min(mut self, bytes: u64) -> Self {
        self.settings.free_bytes_min = bytes;
        self
    }

    /// An observer of pauses, background work and state changes. Default: none.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.settings.observer = Some(observer);
        self
    }

    /// The shortest pause, and the shortest piece of background work, that the observer is told of. Default: 100 µs.
    pub fn observe_pauses_from(mut self, shortest: Duration) -> Self {
        self.settings.observe_pauses_from = shortest;
        self
    }

    /// Whether a missing store is created. Default: yes.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// The engine that is to keep the store. Default: the one that keeps it already, which its `EXUVIA` file names; for
    /// a new store sled, or fjall in a program that was built without sled.
    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub fn engine(mut self, engine: EngineKind) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Whether anything happens by itself: backfill, fold, sweep, the flush of buffered writes. Default: yes.
    /// Without it the store is left as it is found, for tools that only look; what was begun goes on at the next
    /// open that has it.
    pub fn background(mut self, background: bool) -> Self {
        self.settings.background = background;
        self
    }

    /// Whether the store is only looked at. Default: no.
    ///
    /// Then nothing happens by itself (as with [`Options::background`]), no store and no table is made, and every write
    /// and every verb answers [`crate::Error::ReadOnly`].
    ///
    /// It is the store that is not changed; the engine below may still have to write to open its files. sled does: it
    /// finishes what a crash left half done, and refuses a directory that it cannot write to. So do the lock file and
    /// its rule that one process at a time has the store: a reader keeps writers out, and other readers.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.settings.read_only = read_only;
        self
    }

    /// Whether every record is decoded again before it is written, and a write whose record would not be read back is
    /// refused with [`crate::Error::Codec`]. Default: in builds with debug assertions only.
    ///
    /// The types are examined when their table is opened, by values that are made for it. This finds what such values
    /// do not show: a condition of `skip_serializing_if` that holds for a rare value only, a last variant with
    /// `skip_deserializing`, a `with` that does not undo itself for some number. Costs two decodes and an encode a write.
    /// What a backfill writes is decoded again, too; a record that would not be read back goes to the quarantine.
    ///
    /// A table whose types take none of the values that are made for them is checked in this way whatever is asked for here;
    /// [a sample](crate::shape::Describe::sample) of the record's type shows them what is valid, and spares that.
    pub fn check_writes(mut self, check_writes: bool) -> Self {
        self.settings.check_writes = check_writes;
        self
    }

    /// Whether what is made is closed to everybody but its owner. Default: yes.
    ///
    /// A directory that is made then has mode 0700, and so has the engine's in it; files of the store's own have 0600, and those
    /// that the engine makes at first. What an engine makes later has the process's modes, and lies in a closed directory.
    /// With `false` the process's umask decides on all of it. Modes of what is there already are left as they are. It
    /// holds for copies and backups of the store, too. Unix only.
    pub fn private(mut self, private: bool) -> Self {
        self.settings.private = private;
        self
    }

    pub(super) fn settings(&self) -> Settings {
        let background = self.settings.background && !self.settings.read_only;
        Settings { background, ..self.settings.clone() }
    }
}

/// Durability, cache and the budget that migrations start with, in a line: what a benchmark has to say of its options.
impl std::fmt::Display for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Settings { durability, budget, .. } = &self.settings;
        let (cache, pause, share) = (self.cache_bytes >> 20, budget.pause(), budget.share() * 100.0);
        write!(f, "{durability:?}, cache {cache} MiB, budget {pause:?} and {share:.0}% of a core")
    }
}
