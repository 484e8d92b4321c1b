//! Transactions: money goes from one account to another, from several threads at once, and none of it gets lost.
//!
//! `cargo run --example transfer`

#[path = "common/mod.rs"]
mod common;

use common::Scratch;
use exuvia::{Error, Plain, Result, Store, Table};

type Accounts = Table<u32, Plain<u64>>;

#[derive(Debug)]
enum Refused {
    NoAccount(u32),
    TooLittle(u64),
    /// The store's own errors go through, conflicts above all: the transaction is tried again.
    Store(Error),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::NoAccount(account) => write!(f, "there is no account {account}"),
            Refused::TooLittle(balance) => write!(f, "there are {balance} cents only"),
            Refused::Store(e) => e.fmt(f),
        }
    }
}

impl From<Error> for Refused {
    fn from(e: Error) -> Self {
        Refused::Store(e)
    }
}

fn transfer(store: &Store, accounts: &Accounts, from: u32, to: u32, cents: u64) -> Result<(), Refused> {
    store.transaction(|transaction| {
        let balance = transaction.get(accounts, &from)?.ok_or(Refused::NoAccount(from))?.0;
        let target = transaction.get(accounts, &to)?.ok_or(Refused::NoAccount(to))?.0;
        let rest = balance.checked_sub(cents).ok_or(Refused::TooLittle(balance))?;
        transaction.put(accounts, &from, &Plain(rest))?;
        transaction.put(accounts, &to, &Plain(target + cents))?;
        Ok(())
    })
}

fn main() -> Result<()> {
    let scratch = Scratch::new("transfer");
    let store = Store::open(scratch.path())?;
    let accounts: Accounts = store.table("accounts")?;
    accounts.bulk_load((0..10).map(|account| (account, Plain(1_000))))?;

    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (store, accounts) = (&store, &accounts);
            scope.spawn(move || {
                for round in 0..200_u32 {
                    let (from, to) = ((round + thread) % 10, (round * 3 + 1) % 10);
                    if from != to {
                        match transfer(store, accounts, from, to, u64::from(round)) {
                            Ok(()) | Err(Refused::TooLittle(_)) => {}
                            Err(e) => panic!("{e}"),
                        }
                    }
                }
            });
        }
    });

    let total = accounts.scan(..).map(|next| next.map(|(_, cents)| cents.0)).sum::<Result<u64>>()?;
    println!("{total} cents in ten accounts, as before");
    assert_eq!(total, 10_000);
    println!("to nobody: {}", transfer(&store, &accounts, 1, 99, 1).unwrap_err());
    Ok(())
}
