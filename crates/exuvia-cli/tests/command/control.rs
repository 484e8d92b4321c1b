//! The control socket of a running store, and the command that uses it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use exuvia::{Error, Store, Table};
use serde_json::{Value, json};

use crate::command::{DONE, INPUT, refused, run, run_json};
use crate::kit::errors::says;
use crate::kit::hook_engine::elsewhere;
use crate::kit::scene::until;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

const REFUSED: i32 = 5;

struct Running {
    scratch: Scratch,
    store: Store,
    old: Table<u64, UserV1>,
    new: Table<u64, UserV2>,
}

/// A store of 20 users in which "split" is begun and paused, with its socket at the default place.
fn running() -> Running {
    let scratch = Scratch::new("control");
    let store = Store::open(scratch.path().join("store")).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..20 {
        old.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    let new = store.table("users").unwrap();
    store.plan("split").table(&new).paused().begin().unwrap();
    let running = Running { scratch, store, old, new };
    running.store.control_socket(running.socket()).unwrap();
    running
}

impl Running {
    fn path(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    fn socket(&self) -> PathBuf {
        self.path().join("control.sock")
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).unwrap()
    }

    fn ask(&self, line: &[u8]) -> Value {
        let mut stream = self.connect();
        stream.write_all(line).unwrap();
        stream.write_all(b"\n").unwrap();
        answer(&mut stream)
    }
}

fn answer(stream: &mut UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn kind(answer: &Value) -> &str {
    answer["error"]["kind"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn the_command_drives_a_running_store() {
    let running = running();
    let path = running.path();
    let at = path.to_str().unwrap();
    let status = run_json(&["status", at, "--json"]);
    assert_eq!(status["tables"], json!([{ "table": "users", "active": 2, "floor": 1 }]));
    assert_eq!(
        (&status["migrations"][0]["phase"], &status["migrations"][0]["paused"]),
        (&"open".into(), &true.into())
    );
    let (text, _) = run(&["status", at], DONE);
    assert!(text.contains("open in another process") && text.contains("migration split: open"), "{text}");

    let (text, _) = run(&["rollback", at, "split", "--why", "bad names", "--by", "ada", "--fenced"], DONE);
    assert!(text.contains("rollback of migration split is done: it is rolled back"), "{text}");
    assert!(running.new.put(&1, &v2("A", "B", 1, None)).is_err(), "fenced");
    running.old.put(&1, &v1("Old O", 1)).unwrap();
    refused(&["rollback", at, "split"], REFUSED, &["it is rolled back, so it cannot be rolled back"]);
    refused(&["resume", at, "spilt"], REFUSED, &["no migration of this name"]);
    run(&["resume", at, "split"], DONE);
    run(&["budget", at, "split", "--pause-us", "500", "--core-share", "0.5"], DONE);
    run(&["unpause", at, "split", "--by", "eve"], DONE);
    running.store.migration("split").unwrap().wait().unwrap();
    run(&["pause", at, "split"], DONE);
    assert_eq!(running.new.get(&1).unwrap(), Some(v2("Old", "O", 1, None)));

    let (text, _) = run(&["ledger", at], DONE);
    assert!(text.contains("rollback     split: bad names (by ada)"), "{text}");
    let entries = running.store.ledger().unwrap();
    assert_eq!(run_json(&["ledger", at, "--json"])["entries"].as_array().unwrap().len(), entries.len());
    // Reading everything beside its traffic is not for a stranger.
    refused(&["verify", at], INPUT, &["open in another process", "control socket"]);
    let elsewhere = running.scratch.path().join("elsewhere");
    refused(
        &["status", at, "--socket", elsewhere.to_str().unwrap()],
        INPUT,
        &["elsewhere", "no program answers"],
    );
}

#[test]
fn without_a_socket_a_store_in_use_says_how_to_get_one() {
    let scratch = Scratch::new("control-none");
    let store = Store::open(scratch.path().join("store")).unwrap();
    let path = scratch.path().join("store");
    let at = path.to_str().unwrap();
    for command in [&["status", at][..], &["rollback", at, "split"], &["budget", at, "split"]] {
        refused(command, INPUT, &["open in another process", "Store::control_socket"]);
    }
    store.close().unwrap();
}

#[test]
fn a_budget_for_a_store_that_nobody_has_open_is_refused_with_the_reason() {
    let scratch = Scratch::new("control-nobody");
    let path = scratch.path().join("store");
    let at = path.to_str().unwrap();
    refused(&["budget", at, "split"], INPUT, &["there is no store here"]);
    let store = Store::open(&path).unwrap();
    let _old: Table<u64, UserV1> = store.table("more").unwrap();
    let later: Table<u64, UserV2> = store.table("more").unwrap();
    let _begun = store.plan("split").table(&later).paused().begin().unwrap();
    store.close().unwrap();
    refused(&["budget", at, "split"], REFUSED, &["no program has the store open", "Options::budget"]);
    refused(&["budget", at, "spilt"], REFUSED, &["no migration of this name"]);
    refused(&["budget", scratch.path().join("none").to_str().unwrap(), "x"], INPUT, &["there is no store"]);
}

#[test]
fn only_the_owner_gets_in_and_the_socket_goes_with_the_store() {
    let running = running();
    let meta = fs::symlink_metadata(running.socket()).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    let left: Vec<_> = fs::read_dir(running.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".ctl")), "{left:?}");
    says(&running.store.control_socket(running.socket()).unwrap_err(), &["has one already"]);

    // A client that stays connected keeps neither the store open nor its close waiting.
    let mut idle = running.connect();
    idle.write_all(b"{\"exuvia\":1,\"verb\":\"status\"}\n").unwrap();
    assert!(answer(&mut idle)["ok"].is_object());
    let (socket, path) = (running.socket(), running.path());
    let Running { scratch, store, old, new } = running;
    drop((old, new, store));
    assert!(!socket.exists());
    assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0, "its connection ended");
    let store = Store::open(&path).unwrap();
    store.control_socket(&socket).unwrap();
    store.close().unwrap();
    drop(scratch);
}

#[test]
fn a_socket_is_made_where_a_dead_one_was_and_nowhere_else() {
    let scratch = Scratch::new("control-stale");
    let store = Store::open(scratch.path().join("store")).unwrap();
    let stale = scratch.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let live = scratch.path().join("live.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&live).unwrap();
    let file = scratch.path().join("letter.txt");
    fs::write(&file, "dear reader").unwrap();
    let link = scratch.path().join("link.sock");
    std::os::unix::fs::symlink(&stale, &link).unwrap();
    let long = scratch.path().join("x".repeat(200));
    let missing = scratch.path().join("missing").join("control.sock");
    for (path, words) in [
        (&live, &["another program answers"][..]),
        (&file, &["is no socket"]),
        (&link, &["is no socket"]),
        (&missing, &["cannot be made here"]),
        (&long, &["cannot be made here"]),
    ] {
        let e = store.control_socket(path).unwrap_err();
        assert!(matches!(&e, Error::Path { path: named, .. } if named == path), "{e:?}");
        says(&e, words);
    }
    assert_eq!(fs::read(&file).unwrap(), b"dear reader");
    store.control_socket(&stale).unwrap();
    assert!(UnixStream::connect(&stale).is_ok());
    // Another one has taken the name since: it is left alone.
    fs::remove_file(&stale).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&stale).unwrap();
    store.close().unwrap();
    assert!(UnixStream::connect(&stale).is_ok());
}

#[test]
fn what_is_not_understood_is_answered_and_harmless() {
    let running = running();
    let deep = "[".repeat(50_000);
    for (line, word) in [
        (&b""[..], "request"),
        (b"\xff\xfe\x00", "request"),
        (b"rollback split", "request"),
        (b"[]", "request"),
        (b"null", "request"),
        (b"{\"verb\":\"status\"}", "request"),
        (b"{\"exuvia\":1}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"contract\",\"migration\":\"split\"}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"status\",\"extra\":1}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"budget\",\"migration\":\"split\",\"pause_us\":-1}", "request"),
        (b"{\"exuvia\":2,\"verb\":\"status\",\"extra\":1}", "version"),
        (b"{\"exuvia\":1,\"verb\":\"pause\"}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"pause\",\"migration\":\"\"}", "state"),
        (b"{\"exuvia\":1,\"verb\":\"status\",\"verb\":\"rollback\",\"migration\":\"split\"}", "request"),
        (b"{\"exuvia\":1,\"exuvia\":1,\"verb\":\"status\"}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"status\",\"migration\":\"split\"}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"pause\",\"migration\":\"split\",\"fenced\":true}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"rollback\",\"migration\":\"split\",\"core_share\":0.5}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"rollback\",\"migration\":\"split\",\"fenced\":\"no\"}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"budget\",\"migration\":\"split\",\"core_share\":7}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"budget\",\"migration\":\"split\",\"core_share\":0}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"budget\",\"migration\":\"split\",\"pause_us\":0}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"budget\",\"migration\":\"split\",\"pause_us\":1.5}", "request"),
        (
            b"{\"exuvia\":1,\"verb\":\"budget\",\"migration\":\"split\",\"pause_us\":99999999999999999999}",
            "request",
        ),
        (b"{\"exuvia\":1,\"verb\":\"backup\",\"to\":\"/tmp/x\",\"to\":\"/tmp/y\"}", "request"),
        (b"{\"exuvia\":1,\"verb\":\"status\"} rollback", "request"),
        (deep.as_bytes(), "request"),
    ] {
        let answer = running.ask(line);
        assert_eq!(
            (kind(&answer), &answer["exuvia"]),
            (word, &1.into()),
            "{}",
            String::from_utf8_lossy(line)
        );
    }
    // A line that never ends, and one that is cut off.
    let mut endless = running.connect();
    let _refused_on_the_way = endless.write_all(&vec![b'x'; 200_000]);
    assert_eq!(kind(&answer(&mut endless)), "request");
    let mut cut = running.connect();
    cut.write_all(b"{\"exuvia\":1,").unwrap();
    drop(cut);
    // Several requests on one connection, two of them in one piece.
    let mut stream = running.connect();
    stream.write_all(b"{\"exuvia\":1,\"verb\":\"status\"}\n{\"exuvia\":1,\"verb\":\"wat\"}\n").unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert!(next()["ok"]["migrations"].is_array());
    assert_eq!(kind(&next()), "request");
    assert_eq!(running.store.ledger().unwrap().len(), 2, "nothing was changed");
}

#[test]
fn clients_that_do_nothing_are_few_and_hold_nothing() {
    let running = running();
    let mut idle: Vec<UnixStream> = (0..8).map(|_| running.connect()).collect();
    let mut refused = running.connect();
    assert_eq!(kind(&answer(&mut refused)), "busy");
    running.store.migration("split").unwrap().rollback().unwrap();
    idle.pop();
    until("a free place", || {
        let mut stream = running.connect();
        let _it_may_be_refused = stream.write_all(b"{\"exuvia\":1,\"verb\":\"status\"}\n");
        let mut line = String::new();
        let _as_well = BufReader::new(stream).read_line(&mut line);
        line.contains("\"ok\"")
    });
    // Asks and asks, and takes no answer.
    let mut deaf = idle.pop().unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while deaf.write_all(b"{\"exuvia\":1,\"verb\":\"status\"}\n").is_ok() {}
    running.store.migration("split").unwrap().resume().unwrap();
    running.store.clone().close().unwrap();
    // Had the close waited for their deadlines, they would have been told that they are late.
    for mut idle in idle {
        assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0);
    }
}

/// Old and new code write while the command rolls back and forward: every record stays readable at both views, and none
/// is lost.
#[test]
fn verbs_through_the_socket_under_load() {
    let running = running();
    let at = running.path();
    run(&["unpause", at.to_str().unwrap(), "split"], DONE);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (old, new, stop) = (&running.old, &running.new, &stop);
        let writers = [
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    old.put(&(round % 10), &v1("Old O", round as u32 % 90)).unwrap();
                }
                round
            }),
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    new.put(&(10 + round % 10), &v2("New", "N", round as u32 % 90, Some("n@x"))).unwrap();
                }
                round
            }),
        ];
        for verb in ["rollback", "resume", "rollback", "resume"] {
            let answer = run_json(&[verb, at.to_str().unwrap(), "split", "--json"]);
            let phase = if verb == "rollback" { "rolled back" } else { "open" };
            let caught_up = verb == "resume" && answer["phase"] == "complete";
            assert!(answer["phase"] == phase || caught_up, "{answer}");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writers.into_iter().all(|writer| writer.join().unwrap() > 10));
    });
    for id in 0..20 {
        let (first, last) = if id < 10 { ("Old", "O") } else { ("New", "N") };
        let new = running.new.get(&id).unwrap().unwrap();
        let old = running.old.get(&id).unwrap().unwrap();
        assert_eq!((new.first.as_str(), new.last.as_str()), (first, last));
        assert_eq!(old, v1(&format!("{first} {last}"), new.age));
        assert_eq!(new.email.is_some(), id >= 10);
    }
    let verbs = running.store.ledger().unwrap();
    assert_eq!(verbs.iter().filter(|entry| entry.what == "rollback").count(), 2);
}

#[test]
fn a_socket_that_no_process_holds_any_more_is_no_hindrance() {
    let scratch = Scratch::new("control-killed");
    let path = scratch.path().join("store");
    let test = "control::a_socket_that_no_process_holds_any_more_is_no_hindrance";
    if let Some(path) = crate::kit::scratch::child_argument() {
        let store = Store::open(&path).unwrap();
        store.control_socket(Path::new(&path).join("control.sock")).unwrap();
        std::process::abort();
    }
    let status = crate::kit::scratch::child(test, path.to_str().unwrap()).status().unwrap();
    assert!(!status.success() && path.join("control.sock").exists());
    // Nobody has the store: the command opens it itself.
    assert!(run(&["status", path.to_str().unwrap()], DONE).0.contains("no tables"));
    let store = Store::open(&path).unwrap();
    refused(&["status", path.to_str().unwrap()], INPUT, &["Store::control_socket"]);
    store.control_socket(path.join("control.sock")).unwrap();
    assert!(run(&["status", path.to_str().unwrap()], DONE).0.contains("open in another process"));
    store.close().unwrap();
}

/// A program that listens and never accepts, with a full queue: asking it whether it is there must not wait for it.
#[test]
fn a_socket_that_does_not_accept_is_found_taken_at_once() {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    };
    let scratch = Scratch::new("control-full");
    let path = scratch.path().join("taken.sock");
    let address = SocketAddrUnix::new(&path).unwrap();
    // The processes that other tests start do not have it.
    let stream = || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let listener = stream();
    bind(&listener, &address).unwrap();
    listen(&listener, 1).unwrap();
    let mut clients = Vec::new();
    loop {
        let client = stream();
        rustix::io::ioctl_fionbio(&client, true).unwrap();
        let connected = connect(&client, &address);
        clients.push(client);
        if connected.is_err() {
            break;
        }
        assert!(clients.len() < 100, "its queue is full some time");
    }
    let store = Store::open(scratch.path().join("store")).unwrap();
    let (asking, at) = (store.clone(), path.clone());
    let e = elsewhere("a control socket", move || asking.control_socket(at).map(drop)).unwrap_err();
    says(&e, &["another program answers", "name another path"]);
    assert!(path.exists());
    drop((listener, clients));
    store.control_socket(&path).unwrap();
}
