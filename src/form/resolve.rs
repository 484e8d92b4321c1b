//! What an overlay entry means to a reader: the table of main form and companion, as one pure function.
//!
//! An entry's versions and flags alone decide; no code of either version is needed to decide, only to cast.

use crate::form::envelope::Entry;

/// On which side of an open migration a view stands. A view between `from` and `to` reads as `From`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    From,
    To,
}

/// Which form answers a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The record was removed.
    Absent,
    /// The main form, to be upcast to the view if it is older.
    Main,
    /// The companion, to be upcast to the view if it is older.
    Companion,
    /// `merge(main, companion)`: an old writer wrote over a record of the new version.
    Merge,
    /// The base's record: the overlay entry is derived and holds nothing of the view's side.
    Base,
    /// The error that the quarantine keeps.
    Failed,
    /// A one-way migration's writer left no form for this side.
    OneWay,
    /// The versions fit neither side: damage.
    Foreign,
}

/// Reads an overlay entry of a migration `from → to`.
pub(crate) fn overlay(entry: &Entry, from: u32, to: u32, side: Side) -> Form {
    if entry.is_tombstone() {
        return Form::Absent;
    }
    let companion = entry.companion().map(|(version, _)| version);
    let is_to = entry.version() == to;
    // A base may hold records older than `from`; what is copied into the overlay is never older than `from`,
    // but a reader accepts what it can read.
    let is_from = entry.version() <= from;
    match (side, is_to, is_from) {
        (Side::To, true, _) if entry.is_failed_marker() => Form::Failed,
        (Side::To, true, _) => Form::Main,
        (Side::From, true, _) => match companion {
            Some(version) if version <= from => Form::Companion,
            Some(_) => Form::Foreign,
            // The marker of a failed upcast, too.
            None if entry.is_derived() => Form::Base,
            None => Form::OneWay,
        },
        (Side::From, _, true) => Form::Main,
        (Side::To, _, true) if entry.is_failed() => Form::Failed,
        (Side::To, _, true) => match companion {
            None => Form::Main,
            Some(version) if version == to => Form::Merge,
            Some(_) => Form::Foreign,
        },
        _ => Form::Foreign,
    }
}

/// What a `from` writer must keep of the overlay entry that it replaces: the last `to` form, if an application
/// wrote it. A derived one holds nothing of its own and is dropped.
pub(crate) fn kept_by_from_writer(entry: &Entry, from: u32, to: u32) -> Option<(u32, &[u8])> {
    if entry.is_tombstone() || entry.is_derived() {
        return None;
    }
    if entry.version() == to {
        return Some((to, entry.main()));
    }
    if entry.version() <= from {
        return entry.companion().filter(|(version, _)| *version == to);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Value;
    use crate::form::envelope::{Flags, seal};

    fn entry(flags: Flags, version: u32, main: &[u8], companion: Option<(u32, &[u8])>) -> Entry {
        Entry::parse(b"k", Value::from(seal(b"k", flags, version, main, companion).as_slice())).unwrap()
    }

    /// The table of an entry's meaning, row by row: (entry, read at `to`, read at `from`).
    #[test]
    fn the_table_of_forms() {
        let one = Some((1, &b"f"[..]));
        let two = Some((2, &b"t"[..]));
        let failed = Flags::DERIVED.with(Flags::FAILED);
        let rows = [
            (entry(Flags::NONE, 2, b"t", one), Form::Main, Form::Companion),
            (entry(Flags::DERIVED, 2, b"t", None), Form::Main, Form::Base),
            (entry(Flags::DERIVED, 2, b"t", one), Form::Main, Form::Companion),
            (entry(Flags::NONE, 2, b"t", None), Form::Main, Form::OneWay),
            (entry(failed, 2, b"", None), Form::Failed, Form::Base),
            (entry(Flags::NONE, 1, b"f", None), Form::Main, Form::Main),
            (entry(Flags::NONE, 1, b"f", two), Form::Merge, Form::Main),
            (entry(Flags::FAILED, 1, b"f", two), Form::Failed, Form::Main),
            (entry(Flags::TOMBSTONE, 1, b"", None), Form::Absent, Form::Absent),
            (entry(Flags::NONE, 9, b"?", None), Form::Foreign, Form::Foreign),
        ];
        for (entry, at_to, at_from) in rows {
            assert_eq!(overlay(&entry, 1, 2, Side::To), at_to, "{entry:?}");
            assert_eq!(overlay(&entry, 1, 2, Side::From), at_from, "{entry:?}");
        }
    }

    /// A companion has to be of the other side, and a main form of one of the two; or something else wrote it.
    #[test]
    fn versions_that_fit_neither_side_are_foreign() {
        let (one, two, three, four) =
            (Some((1, &b"1"[..])), Some((2, &b"2"[..])), Some((3, &b"3"[..])), Some((4, &b"4"[..])));
        // Of a migration from 2 to 4: (entry, read at `to`, read at `from`, kept by a `from` writer).
        let rows = [
            (entry(Flags::NONE, 4, b"4", two), Form::Main, Form::Companion, four),
            (entry(Flags::NONE, 4, b"4", one), Form::Main, Form::Companion, four),
            (entry(Flags::NONE, 4, b"4", three), Form::Main, Form::Foreign, four),
            (entry(Flags::NONE, 4, b"4", four), Form::Main, Form::Foreign, four),
            (entry(Flags::NONE, 2, b"2", four), Form::Merge, Form::Main, four),
            (entry(Flags::NONE, 1, b"1", four), Form::Merge, Form::Main, four),
            (entry(Flags::NONE, 2, b"2", three), Form::Foreign, Form::Main, None),
            (entry(Flags::NONE, 1, b"1", None), Form::Main, Form::Main, None),
            (entry(Flags::NONE, 3, b"3", four), Form::Foreign, Form::Foreign, None),
            (entry(Flags::NONE, 5, b"5", four), Form::Foreign, Form::Foreign, None),
        ];
        for (entry, at_to, at_from, kept) in rows {
            assert_eq!(overlay(&entry, 2, 4, Side::To), at_to, "{entry:?}");
            assert_eq!(overlay(&entry, 2, 4, Side::From), at_from, "{entry:?}");
            assert_eq!(kept_by_from_writer(&entry, 2, 4), kept, "{entry:?}");
        }
    }

    #[test]
    fn a_from_writer_keeps_only_what_an_application_wrote() {
        let one = Some((1, &b"f"[..]));
        let two = Some((2, &b"t"[..]));
        assert_eq!(kept_by_from_writer(&entry(Flags::NONE, 2, b"t", one), 1, 2), two);
        assert_eq!(kept_by_from_writer(&entry(Flags::NONE, 1, b"f", two), 1, 2), two);
        assert_eq!(kept_by_from_writer(&entry(Flags::FAILED, 1, b"f", two), 1, 2), two);
        assert_eq!(kept_by_from_writer(&entry(Flags::DERIVED, 2, b"t", None), 1, 2), None);
        assert_eq!(kept_by_from_writer(&entry(Flags::DERIVED, 2, b"t", one), 1, 2), None);
        assert_eq!(kept_by_from_writer(&entry(Flags::TOMBSTONE, 2, b"", None), 1, 2), None);
    }
}
