//! One migration of two tables: they are switched, rolled back and contracted together, by one commit each.
//!
//! `cargo run --example two_tables`

#[path = "common/mod.rs"]
mod common;

use common::{Scratch, UserV1, UserV2};
use exuvia::{CastError, Plain, Result, Store, Table, Version};
use serde::{Deserialize, Serialize};

/// Orders had an amount in whole euros. It was a plain type, without a lineage.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    user: u64,
    euros: u32,
}

/// Now they have cents.
#[derive(Debug, Serialize, Deserialize)]
struct OrderV2 {
    user: u64,
    cents: u64,
}

impl Version for OrderV2 {
    const VERSION: u32 = 2;
    type Previous = Plain<Order>;

    fn upcast(old: Plain<Order>) -> Result<Self, CastError> {
        Ok(OrderV2 { user: old.user, cents: u64::from(old.euros) * 100 })
    }

    fn downcast(&self, _last: Option<Plain<Order>>) -> Result<Plain<Order>, CastError> {
        if !self.cents.is_multiple_of(100) {
            return Err(CastError::new("old code knows whole euros only"));
        }
        let euros = u32::try_from(self.cents / 100).map_err(|_| CastError::new("too much for old code"))?;
        Ok(Plain(Order { user: self.user, euros }))
    }
}

fn main() -> Result<()> {
    let scratch = Scratch::new("two_tables");
    let store = Store::open(scratch.path())?;
    let old_users: Table<u64, UserV1> = store.table("users")?;
    let old_orders: Table<(u64, u32), Plain<Order>> = store.table("orders")?;
    for user in 0..100 {
        old_users.put(&user, &UserV1 { name: format!("Ada Number{user}") })?;
        old_orders.put(&(user, 1), &Plain(Order { user, euros: 5 }))?;
    }

    let users: Table<u64, UserV2> = store.table("users")?;
    let orders: Table<(u64, u32), OrderV2> = store.table("orders")?;
    let plan = store.plan("cents and names").table(&users).table(&orders).by("the release of May");
    println!("expected to need at most {} bytes", plan.expected_bytes()?);
    let migration = plan.begin()?;
    for table in migration.wait()?.tables {
        println!("{}: {} copied, version {} to {}", table.table, table.counts.copied, table.from, table.to);
    }
    assert_eq!(orders.get(&(7, 1))?.unwrap().cents, 500);

    // While rollback is promised, what old code could not read is refused, before anything is written.
    let odd = orders.put(&(7, 2), &OrderV2 { user: 7, cents: 199 }).unwrap_err();
    println!("refused: {odd}");

    // Both go back at once, and both forward.
    migration.rollback()?;
    assert!(store.migrations()?.iter().all(|status| status.phase == exuvia::Phase::RolledBack));
    migration.resume()?;
    migration.wait()?;
    migration.contract()?.execute()?;
    orders.put(&(7, 2), &OrderV2 { user: 7, cents: 199 })?;
    println!("orders of user 7: {:?}", orders.scan_prefix(&(7,)).collect::<Result<Vec<_>>>()?);
    Ok(())
}
