//! A rolling upgrade in one process: handles at two views, a migration with a rollback between them.
//!
//! `cargo run --example rolling_upgrade`

#[path = "common/mod.rs"]
mod common;

use common::{Scratch, UserV1, UserV2};
use exuvia::{Result, Store, Table};

fn main() -> Result<()> {
    let scratch = Scratch::new("rolling_upgrade");
    let store = Store::open(scratch.path())?;

    // Version 1 is in production.
    let old: Table<u64, UserV1> = store.table("users")?;
    for id in 0..1000 {
        old.put(&id, &UserV1 { name: format!("Ada Number{id}") })?;
    }

    // Half of the program has the new code. Nothing changed on disk: its reads upcast.
    let new: Table<u64, UserV2> = store.table("users")?;
    assert_eq!(new.get(&7)?.unwrap().last, "Number7");

    // The schema is switched when we say so; both views go on working beside the backfill.
    let migration = store.plan("split names").table(&new).why("search by last name").begin()?;
    let ada = UserV2 { first: "Ada".into(), last: "King".into(), email: Some("ada@example.org".into()) };
    new.put(&1, &ada)?;
    old.put(&2, &UserV1 { name: "Grace Hopper".into() })?;
    assert_eq!(old.get(&1)?.unwrap().name, "Ada King");
    assert_eq!(new.get(&2)?.unwrap().last, "Hopper");
    println!("complete: {:?}", migration.wait()?.phase);

    // Something is wrong with the new code: one flip, and the old code reads and writes all there is.
    migration.rollback()?;
    old.put(&1, &UserV1 { name: "Augusta King".into() })?;

    // It is mended. What the old code could not see was kept.
    migration.resume()?;
    migration.wait()?;
    assert_eq!(new.get(&1)?.unwrap().email.as_deref(), Some("ada@example.org"));

    // No old code runs any more: now the old forms may go.
    let plan = migration.contract()?;
    print!("{plan}");
    plan.execute()?;
    println!("the old view now: {}", old.get(&1).unwrap_err());
    for entry in store.ledger()? {
        println!("{:>3} {} {}", entry.seq, entry.what, entry.subject);
    }
    Ok(())
}
