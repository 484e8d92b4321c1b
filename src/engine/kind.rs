//! The engines that keep a store in a directory, by name.

use std::path::Path;
use std::sync::Arc;

use super::{Engine, EngineResult};
use crate::error::{EngineErrorKind, Error, Result};

/// An engine that keeps a store in a directory. Each is a feature of this crate, of the same name.
///
/// | | sled | fjall |
/// |---|---|---|
/// | kind | page cache over a log | log-structured merge tree |
/// | state | unmaintained since 2021 | maintained |
/// | stalls of writers | short | longer, while it merges files |
/// | snapshots | no | yes |
/// | largest record | 48 KiB; in an open migration both forms together | 1 MiB |
/// | a dropped tree's space | comes back little by little | comes back at once |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineKind {
    /// `SledEngine`: new stores are kept in it, unless another is asked for.
    Sled,
    /// `FjallEngine`.
    Fjall,
}

impl EngineKind {
    pub(crate) const ALL: [Self; 2] = [Self::Sled, Self::Fjall];

    /// The name that a store's `EXUVIA` file records; the feature's name too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Fjall => "fjall",
        }
    }

    /// The engine of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether this program was built with it.
    pub fn is_built_in(self) -> bool {
        match self {
            Self::Sled => cfg!(feature = "sled"),
            Self::Fjall => cfg!(feature = "fjall"),
        }
    }

    /// For new stores: the first that this program was built with.
    pub(crate) fn usual() -> Self {
        if Self::Sled.is_built_in() { Self::Sled } else { Self::Fjall }
    }

    pub(crate) fn check_built_in(self) -> Result<()> {
        if self.is_built_in() {
            return Ok(());
        }
        let name = self.name();
        Err(Error::Format {
            reason: format!(
                "the store is kept by the engine {name:?}, and this program was built without it: build it with the \
                 feature {name:?} of exuvia"
            ),
        })
    }

    /// Opens the engine's own files in `directory`, with so many bytes of cache, and creates them if they are not
    /// there. For tools that need an engine without a store.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] if this program was built without the engine; [`Error::Locked`]; [`Error::Path`] if the directory
    /// is part of a backup, which an open would change; what the engine itself answers.
    pub fn open(self, directory: impl AsRef<Path>, cache_bytes: u64) -> Result<Arc<dyn Engine>> {
        let directory = directory.as_ref();
        let above = match directory.canonicalize() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => {
                let reason = "cannot be looked at; check the path and its permissions".to_owned();
                return Err(Error::Path { path: directory.to_owned(), reason, source: Some(e) });
            }
            Ok(own) => own.parent().map(Path::to_owned),
        };
        if let Some(above) = above
            && let Some(said) = super::backup_mark::refusal(&above)?
        {
            return Err(Error::Path { path: above, reason: said.to_owned(), source: None });
        }
        self.open_with(directory, cache_bytes, true)
    }

    /// `private`: a directory that is made is closed to others.
    pub(crate) fn open_with(
        self,
        directory: &Path,
        cache_bytes: u64,
        private: bool,
    ) -> Result<Arc<dyn Engine>> {
        self.check_built_in()?;
        let opened: EngineResult<Arc<dyn Engine>> = match self {
            #[cfg(feature = "sled")]
            Self::Sled => {
                let options = super::SledOptions::new().cache_bytes(cache_bytes).private(private);
                super::SledEngine::open(directory, options).map(|engine| Arc::new(engine) as _)
            }
            #[cfg(feature = "fjall")]
            Self::Fjall => {
                let options = super::FjallOptions::new().cache_bytes(cache_bytes).private(private);
                super::FjallEngine::open(directory, options).map(|engine| Arc::new(engine) as _)
            }
            #[cfg(not(all(feature = "sled", feature = "fjall")))]
            _ => return Err(Error::Format { reason: format!("no engine {:?} here", self.name()) }),
        };
        opened.map_err(|e| match e.kind() {
            EngineErrorKind::Locked => Error::Locked { path: directory.to_owned() },
            _ => e.into(),
        })
    }
}
