//! The new program: it knows two versions of a user, and migrates. Run by tests/it/migration/old_binary.rs.

mod shell;
mod user_v1;

use exuvia::{CastError, Result, Store, Table, Version};
use serde::{Deserialize, Serialize};
use shell::Fields;
use user_v1::UserV1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct UserV2 {
    first: String,
    last: String,
    age: u32,
    /// Only this version has it.
    email: String,
    /// How the record came to be: shows which of the casts was called.
    origin: String,
}

impl Version for UserV2 {
    const VERSION: u32 = 2;
    type Previous = UserV1;

    fn upcast(old: UserV1) -> Result<Self, CastError> {
        let Some((first, last)) = old.name.split_once(' ') else {
            return Err(CastError::new("no last name"));
        };
        let (first, last) = (first.to_owned(), last.to_owned());
        Ok(UserV2 { first, last, age: old.age, email: "-".to_owned(), origin: "upcast".to_owned() })
    }

    fn downcast(&self, _last: Option<UserV1>) -> Result<UserV1, CastError> {
        Ok(UserV1 { name: format!("{} {}", self.first, self.last), age: self.age })
    }

    /// Leaves a mark, and breaks a law of casts with it: the test wants to see that it was called.
    fn merge(old: UserV1, last: UserV2) -> Result<Option<Self>, CastError> {
        Ok(Some(UserV2 { email: last.email, origin: "merge".to_owned(), ..UserV2::upcast(old)? }))
    }
}

impl Fields for UserV2 {
    fn of(fields: &[&str]) -> Self {
        let [first, last, age, email] = fields else {
            panic!("four fields: {fields:?}");
        };
        let [first, last, email] = [first, last, email].map(|field| (*field).to_owned());
        UserV2 { first, last, age: age.parse().unwrap(), email, origin: "put".to_owned() }
    }

    fn show(&self) -> String {
        let Self { first, last, age, email, origin } = self;
        format!("{first}\t{last}\t{age}\t{email}\t{origin}")
    }
}

fn more(store: &Store, users: &Table<u64, UserV2>, command: &[&str]) -> Result<String> {
    if command == ["begin"] {
        let migration = store.plan("split").table(users).paused().begin()?;
        return Ok(migration.status()?.phase.to_string());
    }
    let migration = store.migration("split")?;
    let status = match command {
        ["step", records] => migration.step(shell::number(records) as usize)?,
        ["backfill"] => {
            migration.unpause()?;
            migration.wait()?
        }
        ["rollback"] => migration.rollback().and_then(|()| migration.status())?,
        ["resume"] => migration.resume().and_then(|()| migration.wait())?,
        ["contract"] => migration.contract()?.execute().and_then(|()| migration.status())?,
        ["verify"] => {
            let report = store.verify()?;
            return Ok(if report.is_clean() { "clean".to_owned() } else { format!("{:?}", report.damage) });
        }
        other => panic!("no such command: {other:?}"),
    };
    Ok(status.phase.to_string())
}

fn main() {
    shell::serve::<UserV2>(more);
}
