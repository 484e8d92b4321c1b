//! A program kept its users in sled by hand; this is the day on which it stops doing so.
//!
//! `cargo run --example import_sled`

use exuvia::tools::import::SledImport;
use exuvia::{CastError, Origin, Store, Table, Version};
use serde::{Deserialize, Serialize};

/// The record as the old program had it. Nothing is written anew: it becomes version 1.
#[derive(Debug, Serialize, Deserialize)]
struct User {
    name: String,
    age: u32,
}

impl Version for User {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

/// What the old program did: a tree "users", ids in big endian, values by `bincode::serialize` of bincode 1.
fn old_program(path: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let db = sled::open(path)?;
    let users = db.open_tree("users")?;
    for id in 0..1000u64 {
        let name = format!("user {id}");
        let mut value = (name.len() as u64).to_le_bytes().to_vec();
        value.extend_from_slice(name.as_bytes());
        value.extend_from_slice(&(20 + id as u32 % 50).to_le_bytes());
        users.insert(id.to_be_bytes(), value)?;
    }
    users.insert(b"schema-version", b"7")?;
    db.flush()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::temp_dir().join(format!("exuvia-import-{}", std::process::id()));
    let (old, new) = (root.join("old-database"), root.join("store"));
    old_program(&old)?;

    let store = Store::open(&new)?;
    let users: Table<u64, User> = store.table("users")?;
    let imported = SledImport::new(&old).tree("users").skip_bad().why("leaving sled by hand").into_table(
        &users,
        |key, value| {
            let id = key.try_into().map_err(|_| CastError::new("a user's key has 8 bytes"))?;
            Ok((u64::from_be_bytes(id), exuvia::codec::decode_bincode1(value)?))
        },
    )?;
    println!("{} users imported, {} records skipped:", imported.records, imported.skipped);
    for bad in &imported.bad {
        println!("  {:?}: {}", String::from_utf8_lossy(&bad.key), bad.reason);
    }
    println!("user 7 is {:?}", users.get(&7)?);

    drop(users);
    store.close()?;
    std::fs::remove_dir_all(&root)?;
    Ok(())
}
