//! The engines with files that this binary was built with.

use exuvia::engine::EngineKind;

pub(crate) fn kinds() -> impl Iterator<Item = EngineKind> {
    [EngineKind::Sled, EngineKind::Fjall].into_iter().filter(|kind| kind.is_built_in())
}
