//! Poison records: they go to the quarantine, everything else goes on, and they are repaired before the contract.
//!
//! `cargo run --example quarantine`

#[path = "common/mod.rs"]
mod common;

use common::{Scratch, UserV1, UserV2};
use exuvia::{Error, Result, Store, Table};

fn main() -> Result<()> {
    let scratch = Scratch::new("quarantine");
    let store = Store::open(scratch.path())?;
    let old: Table<u64, UserV1> = store.table("users")?;
    for (id, name) in [(1, "Ada Lovelace"), (2, "Plato"), (3, "Grace Hopper"), (4, "Voltaire"), (5, "Test")] {
        old.put(&id, &UserV1 { name: name.into() })?;
    }

    // Three names cannot be split. The backfill passes them over and comes to its end.
    let new: Table<u64, UserV2> = store.table("users")?;
    let migration = store.plan("split names").table(&new).begin()?;
    let status = migration.wait()?;
    println!("{} of {} in quarantine", status.tables[0].counts.quarantined, status.tables[0].counts.copied);
    for next in new.quarantined() {
        let (id, reason) = next?;
        // The new view gives the error, the old one the record.
        assert!(matches!(new.get(&id), Err(Error::Quarantined { .. })));
        println!("  {id}: {reason}; it is {:?}", old.get(&id)?);
    }

    // A contract waits for them.
    println!("not yet: {}", migration.contract()?.execute().unwrap_err());

    // Repaired by a new record, by an old one, or removed. (Where the cast itself was wrong: ship it corrected, open the
    // table with it, and `restart` the backfill.)
    new.put(&2, &UserV2 { first: "Aristocles".into(), last: "of Athens".into(), email: None })?;
    old.put(&4, &UserV1 { name: "Francois-Marie Arouet".into() })?;
    new.remove(&5)?;
    assert_eq!(new.quarantined().count(), 0);
    migration.wait()?;
    migration.contract()?.execute()?;
    for next in new.scan(..) {
        println!("{:?}", next?);
    }
    Ok(())
}
