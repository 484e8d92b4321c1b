//! In an async program: calls of the store may wait for the disk, so they run on the runtime's threads for blocking work.
//!
//! `cargo run --example async_runtime`

#[path = "common/mod.rs"]
mod common;

use common::{Scratch, UserV1};
use exuvia::{Durability, Result, Store, Table};
use tokio::task::spawn_blocking;

/// One call of the store, off the async threads. Handles are cheap to clone, and may be used from any thread.
async fn blocking<R: Send + 'static>(call: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
    match spawn_blocking(call).await {
        Ok(result) => result,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

async fn serve(users: Table<u64, UserV1>, id: u64) -> Result<Option<UserV1>> {
    let table = users.clone();
    blocking(move || table.put(&id, &UserV1 { name: format!("Ada Number{id}") })).await?;
    blocking(move || users.get(&id)).await
}

fn main() -> Result<()> {
    let scratch = Scratch::new("async_runtime");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let path = scratch.path().to_owned();
    runtime.block_on(async {
        // Writers that come at the same time share the flush that each of them waits for.
        let store = blocking(move || Store::options().durability(Durability::EveryWrite).open(path)).await?;
        let users: Table<u64, UserV1> = store.table("users")?;
        let requests: Vec<_> = (0..100).map(|id| tokio::spawn(serve(users.clone(), id))).collect();
        for request in requests {
            let user = request.await.expect("no request panics")?;
            assert!(user.is_some());
        }
        // Many records at once: the whole scan in one blocking call, not a call for each record.
        let all = users.clone();
        let names = blocking(move || {
            all.scan(..).map(|next| next.map(|(_, user)| user.name)).collect::<Result<Vec<_>>>()
        });
        println!("{} users", names.await?.len());
        println!("flushes for 100 durable writes: {}", store.stats()?.flushes);
        drop(users);
        blocking(move || store.close()).await
    })
}
