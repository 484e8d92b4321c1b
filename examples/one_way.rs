//! A one-way migration: the new version holds what the old one cannot, and rollback is given up for it.
//!
//! `cargo run --example one_way`

#[path = "common/mod.rs"]
mod common;

use common::Scratch;
use exuvia::{CastError, Plain, Result, Store, Table, Version};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Reading {
    celsius: i16,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum ReadingV2 {
    Celsius(i16),
    /// Nothing that old code could make sense of.
    Broken {
        since: u64,
    },
}

impl Version for ReadingV2 {
    const VERSION: u32 = 2;
    type Previous = Plain<Reading>;

    fn upcast(old: Plain<Reading>) -> Result<Self, CastError> {
        Ok(ReadingV2::Celsius(old.celsius))
    }

    fn downcast(&self, _last: Option<Plain<Reading>>) -> Result<Plain<Reading>, CastError> {
        match self {
            ReadingV2::Celsius(celsius) => Ok(Plain(Reading { celsius: *celsius })),
            ReadingV2::Broken { .. } => Err(CastError::new("a broken sensor has no temperature")),
        }
    }
}

fn main() -> Result<()> {
    let scratch = Scratch::new("one_way");
    let store = Store::open(scratch.path())?;
    let old: Table<u32, Plain<Reading>> = store.table("sensors")?;
    old.put(&1, &Plain(Reading { celsius: 20 }))?;
    let new: Table<u32, ReadingV2> = store.table("sensors")?;

    let migration = store.plan("broken sensors").table(&new).one_way().begin()?;
    new.put(&2, &ReadingV2::Broken { since: 1_700_000_000 })?;
    migration.wait()?;
    println!("status says so: one_way = {}", migration.status()?.one_way);
    println!("no way back: {}", migration.rollback().unwrap_err());
    println!("old code: {:?}, and {}", old.get(&1)?, old.get(&2).unwrap_err());
    migration.contract()?.execute()?;
    assert_eq!(new.get(&1)?, Some(ReadingV2::Celsius(20)));
    Ok(())
}
