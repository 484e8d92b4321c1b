//! The power-loss campaign. It needs Linux, root and `/dev/fuse`, and says so where it has not got them.

#[cfg(target_os = "linux")]
mod campaign;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    campaign::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("0 passed, 0 failed, 1 skipped: the power-loss campaign needs Linux");
}
