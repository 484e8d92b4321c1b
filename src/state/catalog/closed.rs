//! Closed migrations: the catalog keeps the newest, each older one lies under a key of its own.
//!
//! The catalog is one value of bounded size, written at every state change; what is closed never changes again. So
//! `begin` moves all but the newest out of it (at most [`KEPT`], of at most [`KEPT_BYTES`]):
//!
//! 1. Their entries are written under [`key`], and flushed with what `begin` flushes anyway.
//! 2. Its state change leaves them out of the catalog.
//!
//! A crash between the two leaves an entry in both places, and both say the same; the catalog is asked first. A name
//! that was used stays used: `begin` looks for it here too.

use std::cmp::Reverse;

use super::{Catalog, FORMAT_OF_OTHERS, MigrationEntry, Phase, TREE, from_bytes, to_bytes};
use crate::engine::{Capabilities, Engine};
use crate::error::{Error, Result};

/// Most closed migrations that stay in the catalog.
pub(crate) const KEPT: usize = 32;
/// Most bytes that they take there.
pub(super) const KEPT_BYTES: usize = 2048;
const PREFIX: &[u8] = b"closed/";

/// The key of a closed migration's entry.
pub(crate) fn key(name: &str) -> Vec<u8> {
    [PREFIX, name.as_bytes()].concat()
}

/// The entry of a closed migration that is not in the catalog any more. Cost: a lookup.
pub(crate) fn load(engine: &dyn Engine, name: &str) -> Result<Option<MigrationEntry>> {
    let key = key(name);
    engine.tree(TREE)?.get(&key)?.map(|bytes| entry_of(&key, &bytes)).transpose()
}

/// What lies under a key of the catalog's tree, if it is a closed migration's.
pub(crate) fn parse(key: &[u8], bytes: &[u8]) -> Option<Result<(String, MigrationEntry)>> {
    let name = key.strip_prefix(PREFIX)?;
    let Ok(name) = std::str::from_utf8(name) else {
        return Some(Err(Error::corrupt(TREE, key, "the name of a closed migration is no text")));
    };
    Some(entry_of(key, bytes).map(|entry| (name.to_owned(), entry)))
}

/// The names of all closed migrations but the newest: those that the catalog lets go of.
pub(crate) fn older(catalog: &Catalog, limits: &Capabilities) -> Result<Vec<String>> {
    let closed = |entry: &MigrationEntry| entry.known_phase().is_some_and(Phase::is_closed);
    let mut closed: Vec<_> = catalog.migrations.iter().filter(|(_, entry)| closed(entry)).collect();
    closed.sort_by_key(|(_, entry)| Reverse(entry.begun_at_ms));
    let (mut bytes_kept, mut older) = (0, Vec::new());
    for (at, (name, entry)) in closed.into_iter().enumerate() {
        let key = key(name);
        let bytes = to_bytes(FORMAT_OF_OTHERS, &key, entry)?.len();
        bytes_kept += key.len() + bytes;
        // Names were once of any length: one that makes no key stays where it is.
        let fits = key.len() <= limits.key_bytes_max && bytes <= limits.value_bytes_max;
        if fits && (at >= KEPT || bytes_kept > KEPT_BYTES) {
            older.push(name.clone());
        }
    }
    Ok(older)
}

/// Writes the entries of closed migrations under keys of their own. To be flushed before a catalog without them is
/// written.
pub(crate) fn put_aside(engine: &dyn Engine, catalog: &Catalog, names: &[String]) -> Result<()> {
    let tree = engine.tree(TREE)?;
    for (name, entry) in names.iter().filter_map(|name| catalog.migrations.get_key_value(name)) {
        let key = key(name);
        tree.put(&key, &to_bytes(FORMAT_OF_OTHERS, &key, entry)?)?;
    }
    Ok(())
}

/// The entry that lies under a key.
fn entry_of(key: &[u8], bytes: &[u8]) -> Result<MigrationEntry> {
    let entry: MigrationEntry = from_bytes("a closed migration", FORMAT_OF_OTHERS, key, bytes)?;
    match entry.phase()? {
        phase if phase.is_closed() => Ok(entry),
        phase => {
            Err(Error::corrupt(TREE, key, format!("a migration that was put aside as closed is {phase}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::catalog::Step;

    /// Names and texts were once of any length.
    #[cfg(feature = "sled")]
    #[test]
    fn a_name_that_makes_no_key_stays_in_the_catalog() {
        use crate::engine::EngineKind;
        let directory = std::env::temp_dir().join(format!("exuvia-long-name-{}", std::process::id()));
        let _left_by_an_earlier_process = std::fs::remove_dir_all(&directory);
        let engine = EngineKind::Sled.open(&directory, 1 << 20).unwrap();
        let mut catalog = Catalog::new("sled");
        for number in 0..40_u64 {
            let name = if number == 3 { "m".repeat(3000) } else { format!("m{number}") };
            let mut entry = MigrationEntry::new("why".into(), String::new(), false, number, Vec::new());
            entry.set_phase(Phase::Contracted);
            catalog.migrations.insert(name, entry);
        }
        let aside = older(&catalog, &engine.capabilities()).unwrap();
        put_aside(&*engine, &catalog, &aside).unwrap();
        assert_eq!(aside, ["m7", "m6", "m5", "m4", "m2", "m1", "m0"]);
        assert!(load(&*engine, "m7").unwrap().is_some() && load(&*engine, "m8").unwrap().is_none());
        drop(engine);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// By docs/format.md, byte by byte.
    #[test]
    fn an_entry_is_a_format_a_migration_and_a_checksum() {
        let step = Step { table: "t".to_owned(), from: 1, to: 3, metadata_only: false };
        let mut entry = MigrationEntry::new("w".to_owned(), "b".to_owned(), true, 5, vec![step]);
        let key = key("m");
        assert_eq!(key, b"closed/m");
        let open = to_bytes(FORMAT_OF_OTHERS, &key, &entry).unwrap();
        let told = parse(&key, &open).unwrap().unwrap_err();
        assert!(told.to_string().contains("is open"), "{told}");
        entry.set_phase(Phase::Contracted);
        let bytes = to_bytes(FORMAT_OF_OTHERS, &key, &entry).unwrap();
        let body = b"\x01\x01w\x01b\x05\x01\x00\x00\x05\x01\x01t\x01\x03\x00";
        assert_eq!(bytes[..bytes.len() - 4], body[..]);
        assert_eq!(parse(&key, &bytes).unwrap().unwrap(), ("m".to_owned(), entry));
        assert!(parse(b"closed/n", &bytes).unwrap().is_err(), "of another name");
        assert!(parse(b"closed/\xff", &bytes).unwrap().is_err(), "a name that is no text");
        assert!(parse(b"catalog", &bytes).is_none());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(parse(&key, &damaged).unwrap().is_err(), "byte {at}");
            assert!(parse(&key, &bytes[..at]).unwrap().is_err(), "cut at {at}");
        }
    }
}
