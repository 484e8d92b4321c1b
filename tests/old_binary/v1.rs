//! The old program: its sources know only the first version of a user. Run by tests/it/migration/old_binary.rs.

mod shell;
mod user_v1;

fn main() {
    shell::serve::<user_v1::UserV1>(|_, _, command| panic!("no such command: {command:?}"));
}
