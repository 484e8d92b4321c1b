//! The time of day. Both engines with files end in a panic where it is before 1970, so an open looks at it first.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{EngineError, EngineErrorKind};

/// Milliseconds since 1970; `None` where the system's clock is before that.
fn since_1970_ms() -> Option<u64> {
    #[cfg(test)]
    if tests::BEFORE_1970.get() {
        return None;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds since 1970, and 0 before that.
pub(crate) fn now_ms() -> u64 {
    since_1970_ms().unwrap_or_default()
}

/// Refuses to go on with a clock that an engine cannot take.
#[cfg_attr(
    not(any(feature = "sled", feature = "fjall")),
    allow(dead_code, reason = "memory has no use for it")
)]
pub(crate) fn check() -> Result<(), EngineError> {
    if since_1970_ms().is_some() {
        return Ok(());
    }
    let message = "the system's clock is before 1970, which the engine cannot work with; nothing was changed: set the clock, \
                   and open the store again";
    Err(EngineError::new(EngineErrorKind::Io, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        pub(super) static BEFORE_1970: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    #[cfg(any(feature = "sled", feature = "fjall"))]
    #[test]
    fn an_open_before_1970_is_refused_and_changes_nothing() {
        use crate::engine::EngineKind;
        use crate::{Error, Plain, Store, Table};
        for kind in [EngineKind::Sled, EngineKind::Fjall].into_iter().filter(|kind| kind.is_built_in()) {
            let path =
                std::env::temp_dir().join(format!("exuvia-clock-{}-{}", kind.name(), std::process::id()));
            let _left_by_an_earlier_process = std::fs::remove_dir_all(&path);
            let open = || Store::options().engine(kind).cache_bytes(16 << 20).open(&path);
            for there in [false, true] {
                BEFORE_1970.set(true);
                let refused = open().unwrap_err();
                assert!(
                    matches!(&refused, Error::Engine(e) if e.kind() == EngineErrorKind::Io),
                    "{refused:?}"
                );
                assert!(refused.to_string().contains("clock is before 1970"), "{refused}");
                assert_eq!(path.exists(), there);
                BEFORE_1970.set(false);
                let store = open().unwrap();
                let table: Table<u64, Plain<u64>> = store.table("t").unwrap();
                assert_eq!(table.get(&1).unwrap().is_some(), there);
                table.put(&1, &Plain(1)).unwrap();
                drop(table);
                store.close().unwrap();
            }
            std::fs::remove_dir_all(&path).unwrap();
        }
    }
}
