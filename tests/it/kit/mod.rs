//! What the tests have in common. The tests of the command and the long campaigns use it too.

pub(crate) mod damaged_files;
pub(crate) mod damaging;
pub(crate) mod errors;
pub(crate) mod files;
pub(crate) mod format;
pub(crate) mod hook_engine;
pub(crate) mod hooks;
pub(crate) mod kinds;
pub(crate) mod mirror;
pub(crate) mod scene;
pub(crate) mod scratch;
pub(crate) mod trees;
pub(crate) mod types;
