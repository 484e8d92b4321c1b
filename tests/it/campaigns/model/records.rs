//! The record types, with small domains, and their plain fields as a [`Row`]. The casts here are what the crate
//! calls; the reference has rules of its own and never calls them.

use exuvia::{CastError, Origin, Version};
use serde::{Deserialize, Serialize};

use super::reference::Row;

/// The plain fields of a record.
pub trait Plain: Version {
    fn of(row: Row) -> Self;
    fn row(&self) -> Row;
}

macro_rules! record {
    ($name:ident { $($field:ident : $type:ty),* }) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            $($field: $type),*
        }

        impl Plain for $name {
            fn of(row: Row) -> Self {
                let mut fields = row.into_iter();
                $name { $($field: fields.next().unwrap().try_into().unwrap()),* }
            }

            fn row(&self) -> Row {
                let mut row = Row::default();
                let fields = [$(i32::from(self.$field)),*];
                row[..fields.len()].copy_from_slice(&fields);
                row
            }
        }
    };
}

fn refuse<T>(why: &str) -> Result<T, CastError> {
    Err(CastError::new(why))
}

// Lineage A: an upcast that fails for some records, fields that only newer versions hold, a merge by hand, a
// step of the same bytes, a default merge.

record!(A1 { a: u8, b: u8 });
record!(A2 { a: u8, b: u16, extra: i16 });
record!(A3 { a: u8, wide: u16, more: i16 });
record!(A4 { a: u8, wide: u16, more: i16, tag: u8 });

impl Version for A1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }

    fn validate(&self) -> Result<(), CastError> {
        if self.b == 8 { refuse("8 is not allowed in version 1") } else { Ok(()) }
    }
}

impl Version for A2 {
    const VERSION: u32 = 2;
    type Previous = A1;

    fn upcast(old: A1) -> Result<Self, CastError> {
        if old.a == 7 {
            return refuse("7 has no counterpart");
        }
        Ok(A2 { a: old.a, b: u16::from(old.b) + 100, extra: -1 })
    }

    fn downcast(&self, _last: Option<A1>) -> Result<A1, CastError> {
        match self.b.checked_sub(100).and_then(|b| u8::try_from(b).ok()) {
            Some(b) if self.a != 7 => Ok(A1 { a: self.a, b }),
            _ => refuse("version 1 cannot hold this"),
        }
    }

    fn merge(old: A1, last: A2) -> Result<Option<Self>, CastError> {
        Ok(Some(A2 { extra: last.extra, ..A2::upcast(old)? }))
    }

    fn validate(&self) -> Result<(), CastError> {
        if self.a == 8 { refuse("8 is not allowed in version 2") } else { Ok(()) }
    }
}

impl Version for A3 {
    const VERSION: u32 = 3;
    const SAME_BYTES: bool = true;
    type Previous = A2;

    fn upcast(old: A2) -> Result<Self, CastError> {
        Ok(A3 { a: old.a, wide: old.b, more: old.extra })
    }

    fn downcast(&self, _last: Option<A2>) -> Result<A2, CastError> {
        Ok(A2 { a: self.a, b: self.wide, extra: self.more })
    }
}

impl Version for A4 {
    const VERSION: u32 = 4;
    type Previous = A3;

    fn upcast(old: A3) -> Result<Self, CastError> {
        Ok(A4 { a: old.a, wide: old.wide, more: old.more, tag: 0 })
    }

    fn downcast(&self, _last: Option<A3>) -> Result<A3, CastError> {
        Ok(A3 { a: self.a, wide: self.wide, more: self.more })
    }

    fn validate(&self) -> Result<(), CastError> {
        if self.tag == 4 { refuse("tag 4 is not allowed in version 4") } else { Ok(()) }
    }
}

// Lineage B: a version that drops a field and merges by the default, then one that merges by hand.

record!(B1 { a: u8, b: u8, note: u8 });
record!(B2 { a: u8, b: u8, extra: u8 });
record!(B3 { a: u8, b: u8, extra: u8, tag: u8 });

impl Version for B1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for B2 {
    const VERSION: u32 = 2;
    const DROPS_FIELDS: bool = true;
    type Previous = B1;

    fn upcast(old: B1) -> Result<Self, CastError> {
        Ok(B2 { a: old.a, b: old.b, extra: 0 })
    }

    fn downcast(&self, last: Option<B1>) -> Result<B1, CastError> {
        Ok(B1 { a: self.a, b: self.b, note: last.map_or(0, |last| last.note) })
    }

    fn validate(&self) -> Result<(), CastError> {
        if self.b == 8 { refuse("8 is not allowed in version 2") } else { Ok(()) }
    }
}

impl Version for B3 {
    const VERSION: u32 = 3;
    type Previous = B2;

    fn upcast(old: B2) -> Result<Self, CastError> {
        if old.a == 7 {
            return refuse("7 has no counterpart");
        }
        Ok(B3 { a: old.a, b: old.b, extra: old.extra, tag: 0 })
    }

    fn downcast(&self, _last: Option<B2>) -> Result<B2, CastError> {
        if self.tag == 4 || self.a == 7 {
            return refuse("version 2 cannot hold this");
        }
        Ok(B2 { a: self.a, b: self.b, extra: self.extra })
    }

    fn merge(old: B2, last: B3) -> Result<Option<Self>, CastError> {
        Ok(Some(B3 { tag: last.tag, ..B3::upcast(old)? }))
    }
}
