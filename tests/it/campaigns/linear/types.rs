//! A lineage in which every version has a field that its neighbour has not, and no cast loses one that it can keep: so
//! whatever a writer of one version cannot see has to survive him.

use exuvia::{CastError, Origin, Version};
use serde::{Deserialize, Serialize};

use super::model::Rec;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V1 {
    pub id: u32,
    /// Only version 1 has it.
    pub note: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V2 {
    pub id: u32,
    /// Version 1 has it not.
    pub extra: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V3 {
    pub id: u32,
    pub extra: u32,
    /// Only version 3 has it.
    pub more: u32,
}

impl Version for V1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for V2 {
    const VERSION: u32 = 2;
    const DROPS_FIELDS: bool = true;
    type Previous = V1;

    fn upcast(old: V1) -> Result<Self, CastError> {
        Ok(V2 { id: old.id, extra: 0 })
    }

    fn downcast(&self, last: Option<V1>) -> Result<V1, CastError> {
        Ok(V1 { id: self.id, note: last.map_or(0, |last| last.note) })
    }

    fn merge(old: V1, last: V2) -> Result<Option<Self>, CastError> {
        Ok(Some(V2 { id: old.id, extra: last.extra }))
    }
}

impl Version for V3 {
    const VERSION: u32 = 3;
    type Previous = V2;

    fn upcast(old: V2) -> Result<Self, CastError> {
        Ok(V3 { id: old.id, extra: old.extra, more: 0 })
    }

    fn downcast(&self, _last: Option<V2>) -> Result<V2, CastError> {
        Ok(V2 { id: self.id, extra: self.extra })
    }

    fn merge(old: V2, last: V3) -> Result<Option<Self>, CastError> {
        Ok(Some(V3 { id: old.id, extra: old.extra, more: last.more }))
    }
}

/// A version, as the model sees it.
pub trait Seen: Version {
    fn of(rec: Rec) -> Self;
    fn rec(&self) -> Rec;
}

impl Seen for V1 {
    fn of(rec: Rec) -> Self {
        V1 { id: rec.id, note: rec.note }
    }

    fn rec(&self) -> Rec {
        Rec { id: self.id, note: self.note, ..Rec::default() }
    }
}

impl Seen for V2 {
    fn of(rec: Rec) -> Self {
        V2 { id: rec.id, extra: rec.extra }
    }

    fn rec(&self) -> Rec {
        Rec { id: self.id, extra: self.extra, ..Rec::default() }
    }
}

impl Seen for V3 {
    fn of(rec: Rec) -> Self {
        V3 { id: rec.id, extra: rec.extra, more: rec.more }
    }

    fn rec(&self) -> Rec {
        Rec { id: self.id, extra: self.extra, more: self.more, ..Rec::default() }
    }
}
