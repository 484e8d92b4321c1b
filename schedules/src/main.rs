//! The crate's own threads in chosen interleavings: see README.md.

#[cfg(exuvia_shuttle)]
mod campaign;
#[cfg(exuvia_shuttle)]
#[path = "../../tests/it/campaigns/linear/mod.rs"]
mod linear;
#[cfg(exuvia_shuttle)]
mod scheduler;

#[cfg(exuvia_shuttle)]
fn main() -> std::process::ExitCode {
    campaign::main()
}

#[cfg(not(exuvia_shuttle))]
fn main() -> std::process::ExitCode {
    eprintln!("there is nothing to choose in a normal build: set RUSTFLAGS=\"--cfg exuvia_shuttle\"");
    std::process::ExitCode::FAILURE
}
