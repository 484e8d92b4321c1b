//! A type with an encoding of its own, here fixed-width for dense numbers, as the next version of a plain one.
//!
//! `cargo run --example custom_codec`

#[path = "common/mod.rs"]
mod common;

use common::Scratch;
use exuvia::shape::Describe;
use exuvia::{CastError, Plain, Result, Store, Table, Version};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Point {
    x: i32,
    y: i32,
}

/// The same, in eight bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PointV2(Point);

impl Version for PointV2 {
    const VERSION: u32 = 2;
    /// Recorded in the store, so that nobody takes the bytes for another codec's.
    const CODEC: &'static str = "point-le-8";
    type Previous = Plain<Point>;

    fn upcast(old: Plain<Point>) -> Result<Self, CastError> {
        Ok(PointV2(old.into_inner()))
    }

    fn downcast(&self, _last: Option<Plain<Point>>) -> Result<Plain<Point>, CastError> {
        Ok(Plain(self.0.clone()))
    }

    /// serde does not know these bytes, so the shape is told.
    fn describe(describe: &mut Describe) {
        describe.explicit("x and y, i32, little endian");
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CastError> {
        out.extend_from_slice(&self.0.x.to_le_bytes());
        out.extend_from_slice(&self.0.y.to_le_bytes());
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, CastError> {
        let [a, b, c, d, e, f, g, h] = bytes else {
            return Err(CastError::new(format!("a point has 8 bytes, and not {}", bytes.len())));
        };
        let number = |bytes: [&u8; 4]| i32::from_le_bytes(bytes.map(|byte| *byte));
        Ok(PointV2(Point { x: number([a, b, c, d]), y: number([e, f, g, h]) }))
    }
}

fn main() -> Result<()> {
    let scratch = Scratch::new("custom_codec");
    let store = Store::open(scratch.path())?;
    let old: Table<u32, Plain<Point>> = store.table("points")?;
    old.bulk_load((0..1000).map(|n| (n, Plain(Point { x: n as i32 * 100_000, y: -1 }))))?;
    let new: Table<u32, PointV2> = store.table("points")?;
    // The laws hold on our own records.
    exuvia::laws::check::<PointV2>(&[Plain(Point { x: 1, y: -2 })], &[PointV2(Point { x: i32::MIN, y: 0 })])
        .expect("a lens");
    let migration = store.plan("dense points").table(&new).begin()?;
    migration.wait()?;
    migration.contract()?.execute()?;
    assert_eq!(new.get(&7)?, Some(PointV2(Point { x: 700_000, y: -1 })));
    for table in store.inventory()? {
        println!("{}: {:?} records by version, {} bytes", table.table, table.records, table.bytes);
    }
    Ok(())
}
