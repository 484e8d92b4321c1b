//! Real system calls that fail under a store, by `strace`: syncs with EIO, writes with ENOSPC. Nothing that was acknowledged
//! as durable is lost, the failure is a typed error, the handle refuses to go on after a failed sync, and a reopen goes on.
//!
//! Linux with `strace`, which must be allowed to trace; skipped with a word where it is not. The short form fails some calls
//! of each kind; `EXUVIA_SYNC_FAULTS=all` the second to fortieth of every thread, once and from then on.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use exuvia::engine::EngineKind;
use exuvia::{Durability, Error, Phase, Store, Table};

use crate::kit::scratch::{Scratch, child_argument};
use crate::kit::types::*;

const RECORDS: u64 = 24;

fn user(id: u64) -> UserV1 {
    v1(&format!("Ann N{id}"), (id % 90) as u32)
}

#[test]
fn failing_syncs_and_writes_under_sled_lose_nothing_acknowledged() {
    campaign(
        EngineKind::Sled,
        "campaigns::sync_faults::failing_syncs_and_writes_under_sled_lose_nothing_acknowledged",
    );
}

#[cfg(feature = "fjall")]
#[test]
fn failing_syncs_and_writes_under_fjall_lose_nothing_acknowledged() {
    campaign(
        EngineKind::Fjall,
        "campaigns::sync_faults::failing_syncs_and_writes_under_fjall_lose_nothing_acknowledged",
    );
}

/// The child: what it says goes by `sendto`, which no fault hits.
struct Teller(UnixDatagram, PathBuf);

impl Teller {
    fn say(&self, what: impl AsRef<str>) {
        self.0.send_to(what.as_ref().as_bytes(), &self.1).unwrap();
    }

    /// Whether it was done; a failure is told with its kind.
    fn did<T>(&self, what: &str, done: exuvia::Result<T>) -> Option<T> {
        match done {
            Ok(done) => {
                self.say(format!("did {what}"));
                Some(done)
            }
            Err(e) => {
                let kind = match &e {
                    Error::Engine(e) => format!("{:?}", e.kind()),
                    Error::Poisoned { .. } => "Poisoned".to_owned(),
                    Error::Path { .. } => "Path".to_owned(),
                    other => format!("{other:?}"),
                };
                self.say(format!("failed {what}: {kind}: {e}"));
                None
            }
        }
    }
}

fn options() -> exuvia::Options {
    Store::options().durability(Durability::EveryWrite).cache_bytes(16 << 20).free_bytes_min(0)
}

fn work(root: &Path) {
    let told = Teller(UnixDatagram::unbound().unwrap(), root.join("told"));
    // What the parent made.
    let Some(store) = told.did("open", options().open(root.join("store"))) else { return };
    let tables = (store.table::<u64, UserV1>("users"), store.table::<u64, UserV2>("users"));
    let (Ok(old), Ok(new)) = tables else { return told.say("failed tables: both were there") };
    let mut migration = None;
    for id in 0..RECORDS {
        let done = match id {
            4 => {
                told.say("try begin");
                migration = told.did("begin", store.plan("split").table(&new).paused().begin());
                migration.is_some()
            }
            12 | 20 => {
                let (what, migration) =
                    (if id == 12 { "rollback" } else { "resume" }, migration.as_ref().unwrap());
                told.say(format!("try {what}"));
                told.did(what, if id == 12 { migration.rollback() } else { migration.resume() }).is_some()
            }
            8 | 22 => told.did("step", migration.as_ref().unwrap().step(3).map(drop)).is_some(),
            _ => true,
        };
        if !done || told.did(&format!("put {id}"), old.put(&id, &user(id))).is_none() {
            // What may still be written is acknowledged like anything else.
            told.did(&format!("put {}", 1000 + id), old.put(&(1000 + id), &user(1000 + id)));
            break;
        }
    }
    drop((migration, old, new));
    told.did("close", store.close());
}

fn campaign(kind: EngineKind, test: &str) {
    if let Some(root) = child_argument() {
        return work(Path::new(&root));
    }
    let can = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO", "true"])
        .output();
    if !can.is_ok_and(|done| done.status.success()) {
        println!("skipped: there is no strace that may trace here");
        return;
    }
    let long = std::env::var("EXUVIA_SYNC_FAULTS").is_ok_and(|form| form == "all");
    let faults = [
        ("fdatasync,fsync", "EIO"),
        ("sync_file_range", "EIO"),
        ("pwrite64,write,pwritev,writev,ftruncate,fallocate", "ENOSPC"),
        ("pwrite64,write,pwritev,writev", "EIO"),
    ];
    let (mut runs, mut failed, mut poisoned) = (0, 0, 0);
    for (calls, error) in faults {
        let numbers: Vec<u32> = if long { (2..=40).collect() } else { vec![2, 3, 9] };
        for number in numbers {
            for on in if long { &["", "+"][..] } else { &["+"] } {
                let when = format!("inject={calls}:error={error}:when={number}{on}");
                let (said, was_poisoned) = run(kind, test, calls, &when);
                runs += 1;
                failed += u32::from(said);
                poisoned += u32::from(was_poisoned);
            }
        }
    }
    println!(
        "{kind:?}: {runs} runs, {failed} with a failure, {poisoned} of them with a refused write after it"
    );
    assert!(failed >= 2 && poisoned >= 1, "the faults hit something");
}

/// Answers whether anything failed, and whether a write was refused after that.
fn run(kind: EngineKind, test: &str, calls: &str, when: &str) -> (bool, bool) {
    let scratch = Scratch::new("sync-faults");
    let path = scratch.path().join("store");
    let store = options().engine(kind).open(&path).unwrap();
    drop(store.table::<u64, UserV1>("users").unwrap());
    store.close().unwrap();

    let told = UnixDatagram::bind(scratch.path().join("told")).unwrap();
    let mut child = Command::new("strace");
    child.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", when]);
    // Quiet: the harness writes once before the test, and that first write is never failed.
    child.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--test-threads=1", "-q"]);
    child
        .env("EXUVIA_TEST_CHILD", scratch.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut running = child.spawn().unwrap();
    told.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (mut lines, mut buffer, mut waited) = (Vec::new(), [0; 4096], 0);
    loop {
        match told.recv(&mut buffer) {
            Ok(len) => lines.push(String::from_utf8_lossy(&buffer[..len]).into_owned()),
            Err(_) if running.try_wait().unwrap().is_some() => break,
            Err(_) => waited += 1,
        }
        if waited > 3000 {
            running.kill().unwrap();
            running.wait().unwrap();
            panic!("{kind:?} {when}: it hangs after {lines:?}");
        }
    }
    assert!(!lines.is_empty(), "{kind:?} {when}: it said nothing");
    let ended = lines.last().unwrap();
    assert!(
        ["did close", "failed close", "failed open"].iter().any(|end| ended.starts_with(end)),
        "{kind:?} {when}: it ended in the middle: {lines:?}"
    );
    let failures: Vec<&String> = lines.iter().filter(|line| line.starts_with("failed")).collect();
    for failure in &failures {
        let typed = ["Io", "NoSpace", "Poisoned", "Path", "Corrupt"]
            .iter()
            .any(|kind| failure.contains(&format!(": {kind}: ")));
        assert!(typed, "{kind:?} {when}: {failure}");
        assert!(
            !failure.contains("Corrupt"),
            "{kind:?} {when}: a fault of the system is taken for damage: {failure}"
        );
    }
    let refused = failures.iter().any(|failure| failure.contains("put 10") && failure.contains("Poisoned"));
    if when.contains("sync:error")
        && when.contains('+')
        && failures.first().is_some_and(|f| f.starts_with("failed put"))
    {
        assert!(refused, "{kind:?} {when}: after a failed sync nothing may be acknowledged: {lines:?}");
    }

    // A reopen goes on.
    let store = options().open(&path).unwrap();
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{kind:?} {when}: {report:?}");
    let (old, new): (Table<u64, UserV1>, Table<u64, UserV2>) =
        (store.table("users").unwrap(), store.table("users").unwrap());
    let acknowledged: BTreeSet<u64> =
        lines.iter().filter_map(|line| line.strip_prefix("did put ")?.parse().ok()).collect();
    for id in &acknowledged {
        assert_eq!(
            old.get(id).unwrap(),
            Some(user(*id)),
            "{kind:?} {when}: {id} was acknowledged: {lines:?}"
        );
        assert_eq!(new.get(id).unwrap().map(|user| user.age), Some((*id % 90) as u32), "{kind:?} {when}");
    }
    let phase = store.migration("split").ok().map(|migration| migration.status().unwrap().phase);
    let forward = [Some(Phase::Open), Some(Phase::Complete)];
    let done = |what: &str| lines.iter().any(|line| *line == format!("did {what}"));
    let tried = |what: &str| lines.iter().any(|line| *line == format!("try {what}"));
    let may_be = [
        (!done("begin"), vec![None]),
        (tried("begin") && !done("rollback"), forward.to_vec()),
        (tried("rollback") && !done("resume"), vec![Some(Phase::RolledBack)]),
        (tried("resume"), forward.to_vec()),
    ];
    let may_be: Vec<Option<Phase>> =
        may_be.into_iter().filter(|(may, _)| *may).flat_map(|(_, phases)| phases).collect();
    assert!(may_be.contains(&phase), "{kind:?} {when}: {phase:?} after {lines:?}");
    old.put(&77, &user(77)).unwrap();
    store.close().unwrap();
    (!failures.is_empty(), refused)
}
