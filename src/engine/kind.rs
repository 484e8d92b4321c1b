//! The engines that keep a store in a directory, by name.

use std::path::Path;
use std::sync::Arc;

use super::Engine;
use crate::error::{Error, Result};

/// An engine that keeps a store in a directory. Each is a feature of this crate, of the same name.
///
/// | | sled | fjall |
/// |---|---|---|
/// | kind | page cache over a log | log-structured merge tree |
/// | state | unmaintained since 2021 | maintained |
/// | stalls of writers | short | longer, while it merges files |
/// | snapshots | no | yes |
/// | largest value | 48 KiB | 1 MiB |
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
    /// [`Error::Format`] if this program was built without the engine; what the engine itself answers.
    pub fn open(self, directory: impl AsRef<Path>, cache_bytes: u64) -> Result<Arc<dyn Engine>> {
        self.open_with(directory.as_ref(), cache_bytes, true)
    }

    /// `private`: a directory that is made is closed to others.
    pub(crate) fn open_with(
        self,
        directory: &Path,
        cache_bytes: u64,
        private: bool,
    ) -> Result<Arc<dyn Engine>> {
        self.check_built_in()?;
        match self {
            #[cfg(feature = "sled")]
            Self::Sled => {
                let options = super::SledOptions::new().cache_bytes(cache_bytes).private(private);
                Ok(Arc::new(super::SledEngine::open(directory, options)?))
            }
            #[cfg(feature = "fjall")]
            Self::Fjall => {
                let options = super::FjallOptions::new().cache_bytes(cache_bytes).private(private);
                Ok(Arc::new(super::FjallEngine::open(directory, options)?))
            }
            #[cfg(not(all(feature = "sled", feature = "fjall")))]
            _ => Err(Error::Format { reason: format!("no engine {:?} here", self.name()) }),
        }
    }

    /// Returns when the engine that was open in `directory`, whose last handle is gone, has written its last.
    pub(crate) fn wait_for_close(self, directory: &Path) -> std::io::Result<()> {
        match self {
            #[cfg(feature = "sled")]
            Self::Sled => super::sled::wait_for_close(directory),
            _ => {
                let _writes_nothing_later = directory;
                Ok(())
            }
        }
    }
}
