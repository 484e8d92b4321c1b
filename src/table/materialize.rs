//! From the bytes that a read found to a record of the user's type.

use crate::error::Result;
use crate::form::envelope;
use crate::form::resolve::Form;
use crate::record::lineage;
use crate::record::version::Version;
use crate::state::route::{Found, TableState};

/// Decodes what a read found, and casts it to `V`. User code runs here, under no lock.
#[inline]
pub(crate) fn materialize<V: Version>(state: &TableState, key: &[u8], found: Found) -> Result<Option<V>> {
    let Found::Form { entry, form, to, validate } = found else {
        return Ok(None);
    };
    let main = (state.read_as(entry.version(), V::VERSION), entry.main());
    let result = match (form, entry.companion()) {
        (Form::Merge, Some((_, companion))) => lineage::merge_up::<V>(to, main, companion).map(|merged| {
            if merged.dropped {
                state.shared.recorder.merges_dropped.fetch_add(1, crate::sync::atomic::Ordering::Relaxed);
            }
            merged.record
        }),
        (Form::Companion, Some(companion)) => lineage::decode_at(companion),
        _ => lineage::decode_at(main),
    };
    let result = result.and_then(|record| {
        if validate {
            lineage::validate_at(&record, to, None)?;
        }
        Ok(Some(record))
    });
    result.map_err(|e| state.cast_failed(key, e))
}

/// What [`TableState::plain`] and [`materialize`] do to a record of a settled table, where it lies.
#[inline]
pub(crate) fn decode_plain<V: Version>(state: &TableState, key: &[u8], value: &[u8]) -> Result<Option<V>> {
    let header = match envelope::parse(key, value) {
        Ok(header) => header,
        Err(damage) => return Err(state.damaged(key, damage.0)),
    };
    if header.is_absence() {
        return Ok(None);
    }
    match lineage::decode_at((state.read_as(header.version, V::VERSION), header.main(value))) {
        Ok(record) => Ok(Some(record)),
        Err(e) => Err(state.cast_failed(key, e)),
    }
}
