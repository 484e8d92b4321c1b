//! The lineage of the soak: eight versions, so that a table is migrated and contracted seven times before it is made
//! anew. Odd and even ones differ in order and fields, so every step rewrites every record.

use std::sync::Arc;

use exuvia::{Batch, CastError, Origin, Plan, Result, Store, Table, Transaction, Version};
use serde::{Deserialize, Serialize};

pub const NEWEST: u32 = 8;

/// What every version of a record says, and what the model holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    pub n: u64,
    pub length: usize,
}

pub trait Plain: Version {
    fn of(fields: Fields) -> Self;
    fn fields(&self) -> Option<Fields>;
}

fn pad(Fields { n, length }: Fields) -> Vec<u8> {
    vec![n as u8; length]
}

/// `None`: the bytes are not what was written.
fn fields(n: u64, pad: &[u8]) -> Option<Fields> {
    pad.iter().all(|byte| *byte == n as u8).then_some(Fields { n, length: pad.len() })
}

/// What only even versions hold: of this number, or lost on the way through an odd one.
fn extra_of(n: u64) -> u32 {
    n as u32 | 1
}

macro_rules! odd {
    ($name:ident, $version:literal, $previous:ident, $upcast:expr, $downcast:expr) => {
        #[derive(Serialize, Deserialize)]
        pub struct $name {
            n: u64,
            pad: Vec<u8>,
        }

        impl Plain for $name {
            fn of(fields: Fields) -> Self {
                $name { n: fields.n, pad: pad(fields) }
            }

            fn fields(&self) -> Option<Fields> {
                fields(self.n, &self.pad)
            }
        }

        impl Version for $name {
            const VERSION: u32 = $version;
            type Previous = $previous;
            // What even versions hold and odd ones do not.
            const DROPS_FIELDS: bool = $version > 1;

            fn upcast(old: $previous) -> Result<Self, CastError> {
                let upcast: fn($previous) -> Result<Self, CastError> = $upcast;
                upcast(old)
            }

            fn downcast(&self, last: Option<$previous>) -> Result<$previous, CastError> {
                let downcast: fn(&Self, Option<$previous>) -> Result<$previous, CastError> = $downcast;
                downcast(self, last)
            }
        }
    };
}

macro_rules! even {
    ($name:ident, $version:literal, $previous:ident) => {
        #[derive(Serialize, Deserialize)]
        pub struct $name {
            pad: Vec<u8>,
            n: u64,
            extra: Option<u32>,
        }

        impl Plain for $name {
            fn of(fields: Fields) -> Self {
                $name { pad: pad(fields), n: fields.n, extra: Some(extra_of(fields.n)) }
            }

            fn fields(&self) -> Option<Fields> {
                let whole = self.extra.is_none_or(|extra| extra == extra_of(self.n));
                fields(self.n, &self.pad).filter(|_| whole)
            }
        }

        impl Version for $name {
            const VERSION: u32 = $version;
            type Previous = $previous;

            fn upcast(old: $previous) -> Result<Self, CastError> {
                Ok($name { pad: old.pad, n: old.n, extra: None })
            }

            fn downcast(&self, _last: Option<$previous>) -> Result<$previous, CastError> {
                Ok($previous { n: self.n, pad: self.pad.clone() })
            }

            // A new number of old code's leaves no extra behind.
            fn merge(old: $previous, last: $name) -> Result<Option<Self>, CastError> {
                let extra = last.extra.filter(|_| last.n == old.n);
                Ok(Some($name { pad: old.pad, n: old.n, extra }))
            }
        }
    };
}

macro_rules! odd_after {
    ($name:ident, $version:literal, $previous:ident) => {
        odd!($name, $version, $previous, |old| Ok($name { n: old.n, pad: old.pad }), |new, last| {
            let extra = last.filter(|last| last.n == new.n).and_then(|last| last.extra);
            Ok($previous { pad: new.pad.clone(), n: new.n, extra })
        });
    };
}

odd!(S1, 1, Origin, |old: Origin| old.never(), |_, _| Origin::nothing_below());
even!(S2, 2, S1);
odd_after!(S3, 3, S2);
even!(S4, 4, S3);
odd_after!(S5, 5, S4);
even!(S6, 6, S5);
odd_after!(S7, 7, S6);
even!(S8, 8, S7);

/// A handle whose type is only known by its view.
pub trait Handle: Send + Sync {
    fn get(&self, key: u64) -> Result<Option<Option<Fields>>>;
    fn put(&self, key: u64, fields: Fields) -> Result<()>;
    fn remove(&self, key: u64) -> Result<()>;
    fn update(&self, key: u64, change: &dyn Fn(Fields) -> Fields) -> Result<()>;
    /// Keys and records from this key on.
    fn scan(&self, from: u64, limit: usize) -> Result<Vec<(u64, Option<Fields>)>>;
    fn load(&self, records: &[(u64, Fields)]) -> Result<u64>;
    fn batch_put(&self, batch: &mut Batch, key: u64, fields: Fields);
    fn tx_get(&self, tx: &mut Transaction, key: u64) -> Result<Option<Option<Fields>>>;
    fn tx_put(&self, tx: &mut Transaction, key: u64, fields: Fields) -> Result<()>;
    fn plan(&self, plan: Plan) -> Plan;
}

impl<V: Plain> Handle for Table<u64, V> {
    fn get(&self, key: u64) -> Result<Option<Option<Fields>>> {
        Ok(Table::get(self, &key)?.map(|record| record.fields()))
    }

    fn put(&self, key: u64, fields: Fields) -> Result<()> {
        Table::put(self, &key, &V::of(fields))
    }

    fn remove(&self, key: u64) -> Result<()> {
        Table::remove(self, &key)
    }

    fn update(&self, key: u64, change: &dyn Fn(Fields) -> Fields) -> Result<()> {
        let changed = |record: Option<V>| {
            let fields = record?.fields()?;
            Some(V::of(change(fields)))
        };
        Table::update(self, &key, changed).map(drop)
    }

    fn scan(&self, from: u64, limit: usize) -> Result<Vec<(u64, Option<Fields>)>> {
        Table::scan(self, from..)
            .take(limit)
            .map(|item| item.map(|(key, record)| (key, record.fields())))
            .collect()
    }

    fn load(&self, records: &[(u64, Fields)]) -> Result<u64> {
        self.bulk_load(records.iter().map(|(key, fields)| (*key, V::of(*fields))))
    }

    fn batch_put(&self, batch: &mut Batch, key: u64, fields: Fields) {
        batch.put(self, &key, V::of(fields));
    }

    fn tx_get(&self, tx: &mut Transaction, key: u64) -> Result<Option<Option<Fields>>> {
        Ok(tx.get(self, &key)?.map(|record| record.fields()))
    }

    fn tx_put(&self, tx: &mut Transaction, key: u64, fields: Fields) -> Result<()> {
        tx.put(self, &key, &V::of(fields))
    }

    fn plan(&self, plan: Plan) -> Plan {
        plan.table(self)
    }
}

fn open<V: Plain>(store: &Store, table: &str) -> Result<Arc<dyn Handle>> {
    Ok(Arc::new(store.table::<u64, V>(table)?))
}

/// The table at a view of 1 to [`NEWEST`].
pub fn handle(store: &Store, table: &str, view: u32) -> Result<Arc<dyn Handle>> {
    match view {
        1 => open::<S1>(store, table),
        2 => open::<S2>(store, table),
        3 => open::<S3>(store, table),
        4 => open::<S4>(store, table),
        5 => open::<S5>(store, table),
        6 => open::<S6>(store, table),
        7 => open::<S7>(store, table),
        _ => open::<S8>(store, table),
    }
}
