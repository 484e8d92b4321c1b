//! Names of trees as fjall takes them: it has room for 255 bytes. A longer name is stored as its hash, and the name
//! itself as a record of a keyspace of our own, durable before the keyspace that it names.

use std::borrow::Cow;

/// What a name that is not stored as it is begins with.
const MARK: char = '~';
/// The keyspace that holds long names: stored name → name.
pub(super) const LONG_NAMES: &str = "~names";

/// The name of the keyspace for a tree. It begins with the mark if the name itself has to be kept elsewhere.
pub(super) fn stored(name: &str) -> Cow<'_, str> {
    if name.len() <= usize::from(u8::MAX) && !name.is_empty() && !name.starts_with(MARK) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("{MARK}{}", blake3::hash(name.as_bytes()).to_hex()))
}

pub(super) fn is_hash(stored: &str) -> bool {
    stored.starts_with(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_fits_and_no_two_meet() {
        let long = "x".repeat(267);
        let names = ["3/7", "", "quarantine/users", "~names", "~", &long, &long[1..], &stored(&long)];
        let all: std::collections::BTreeSet<String> =
            names.iter().map(|name| stored(name).into_owned()).collect();
        assert_eq!(all.len(), names.len());
        assert!(!all.contains(LONG_NAMES));
        assert!(all.iter().all(|name| (1..=255).contains(&name.len())));
        assert_eq!(stored("quarantine/users"), "quarantine/users");
    }
}
