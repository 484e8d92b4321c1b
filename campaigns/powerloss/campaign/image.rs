//! A crash image on a real directory, and the child process that opens it.
//!
//! The store may panic, abort or hang over what it finds, so it is opened in a process of its own.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::disk::Image;
use super::oracle::{Observed, fnv};
use super::rig::{Kind, Sizes, TREES};

const PATIENCE: Duration = Duration::from_secs(20);

/// Why an image could not be read.
#[derive(Debug)]
pub enum Refusal {
    Error(String),
    Panic(String),
    Hang,
}

pub fn lay_out(image: &Image, at: &Path) -> Result<(), String> {
    let told = |e: std::io::Error| format!("lay out image at {}: {e}", at.display());
    if at.exists() {
        fs::remove_dir_all(at).map_err(told)?;
    }
    fs::create_dir_all(at).map_err(told)?;
    for (path, content) in image {
        match content {
            None => fs::create_dir_all(at.join(path)).map_err(told)?,
            Some(bytes) => fs::write(at.join(path), bytes).map_err(told)?,
        }
    }
    Ok(())
}

/// Opens the store at `at` in a child process and reads all of it, by scan and by key.
pub fn read_back(at: &Path, kind: &Kind, sizes: Sizes) -> Result<Result<Observed, Refusal>, String> {
    let own = std::env::current_exe().map_err(|e| format!("find own executable: {e}"))?;
    let mut child = Command::new(own)
        .arg("--read-back")
        .arg(at)
        .args(["--rig", kind.name, "--segment", &sizes.segment.to_string()])
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("start the reader: {e}"))?;
    let drain = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut stream) = stream {
                // A reader that dies early leaves what it said so far; the exit status tells the rest.
                let _ = stream.read_to_string(&mut text);
            }
            text
        })
    };
    let out = drain(child.stdout.take().map(|s| Box::new(s) as _));
    let err = drain(child.stderr.take().map(|s| Box::new(s) as _));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| format!("wait for the reader: {e}"))? {
            break Some(status);
        }
        if started.elapsed() > PATIENCE {
            child.kill().map_err(|e| format!("stop the reader: {e}"))?;
            child.wait().map_err(|e| format!("wait for the reader: {e}"))?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let out = out.join().unwrap_or_default();
    let err = err.join().unwrap_or_default();
    let panic = err.lines().skip_while(|l| !l.contains("panicked at")).take(2).collect::<Vec<_>>().join(" ");
    Ok(match status {
        None if panic.is_empty() => Err(Refusal::Hang),
        None => Err(Refusal::Panic(panic)),
        Some(status) if status.success() => Ok(parse(&out)?),
        Some(_) if !panic.is_empty() => Err(Refusal::Panic(panic)),
        Some(status) => Err(Refusal::Error(format!("{status}: {}", err.trim()))),
    })
}

/// The child's side of [`read_back`]: one line for each pair, and a last line that says it is the last.
pub fn print_all(at: &Path, kind: &Kind, sizes: Sizes) -> Result<(), String> {
    let rig = (kind.open)(at, sizes)?;
    let mut text = String::new();
    for tree in 0..TREES {
        for (key, value) in rig.scan(tree)? {
            if rig.get(tree, &key)?.as_deref() != Some(value.as_slice()) {
                return Err(format!("scan and get differ at {}", String::from_utf8_lossy(&key)));
            }
            let key = String::from_utf8_lossy(&key).into_owned();
            text.push_str(&format!("{tree} {key} {} {}\n", value.len(), fnv(&value)));
        }
    }
    println!("{text}end");
    Ok(())
}

fn parse(text: &str) -> Result<Observed, String> {
    let mut observed = Observed::new();
    for line in text.lines() {
        if line == "end" {
            return Ok(observed);
        }
        let fields: Vec<&str> = line.split(' ').collect();
        let [tree, key, length, hash] = fields.as_slice() else {
            return Err(format!("the reader said {line:?}"));
        };
        let number = |field: &str| field.parse::<u64>().map_err(|e| format!("the reader said {line:?}: {e}"));
        let slot = (number(tree)? as usize, key.as_bytes().to_vec());
        observed.insert(slot, (number(length)? as usize, number(hash)?));
    }
    Err("the reader stopped before its end".into())
}
