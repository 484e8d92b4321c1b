//! A program from before the migration and one from after it, as two executables, take turns at one store.
//!
//! Cargo builds them as examples (tests/old_binary), so that nobody who embeds the crate does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::kit::scratch::Scratch;

/// A running program that has the store open.
struct Program {
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Answers the program and what it said about opening the store.
    fn start(name: &str, store: &Path) -> (Self, String) {
        let deps = std::env::current_exe().unwrap();
        let target = deps.parent().unwrap().parent().unwrap();
        let program = target.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        assert!(program.exists(), "{} is missing: run `cargo build --examples`", program.display());
        let mut command = Command::new(program);
        let mut child = command
            .arg(store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let stdin = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut program = Self { child, stdin, answers };
        let said = program.answer();
        (program, said)
    }

    fn open(name: &str, store: &Path) -> Self {
        let (program, said) = Self::start(name, store);
        assert_eq!(said, "open");
        program
    }

    fn answer(&mut self) -> String {
        self.answers.next().expect("the program answers").unwrap()
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.stdin, "{command}").unwrap();
        self.answer()
    }

    fn tell(&mut self, command: &str) {
        assert_eq!(self.ask(command), "done", "{command}");
    }

    /// All records, by their keys.
    fn all(&mut self) -> BTreeMap<u64, String> {
        let answer = self.ask("all");
        let pair = |line: &str| {
            let (id, fields) = line.split_once('\t').unwrap();
            (id.parse().unwrap(), fields.to_owned())
        };
        answer.split(';').map(pair).collect()
    }

    fn close(mut self) {
        drop(self.stdin);
        assert_eq!(self.answers.next().unwrap().unwrap(), "closed");
        assert!(self.child.wait().unwrap().success());
    }
}

/// What a user is, told without the types of either program.
#[derive(Clone)]
struct Model {
    first: &'static str,
    last: String,
    age: u32,
    email: String,
    origin: &'static str,
}

#[derive(Default)]
struct Users(BTreeMap<u64, Model>);

impl Users {
    /// As the old program sees them.
    fn v1(&self) -> BTreeMap<u64, String> {
        let show = |u: &Model| format!("{} {}\t{}", u.first, u.last, u.age);
        self.0.iter().map(|(id, user)| (*id, show(user))).collect()
    }

    fn v2(&self) -> BTreeMap<u64, String> {
        let show = |u: &Model| format!("{}\t{}\t{}\t{}\t{}", u.first, u.last, u.age, u.email, u.origin);
        self.0.iter().map(|(id, user)| (*id, show(user))).collect()
    }

    fn put_by_v1(&mut self, program: &mut Program, id: u64, age: u32) {
        let last = format!("Old{id}");
        program.tell(&format!("put\t{id}\tAnn {last}\t{age}"));
        let before = self.0.get(&id);
        // Over a record that the new program wrote (or merged) there is something to merge with.
        let native = before.is_some_and(|user| user.origin != "upcast");
        let email = before.filter(|_| native).map_or("-".to_owned(), |user| user.email.clone());
        let origin = if native { "merge" } else { "upcast" };
        self.0.insert(id, Model { first: "Ann", last, age, email, origin });
        assert_eq!(program.ask(&format!("get\t{id}")), self.v1()[&id]);
    }

    fn put_by_v2(&mut self, program: &mut Program, id: u64, age: u32) {
        let user = Model {
            first: "Bob",
            last: format!("New{id}"),
            age,
            email: format!("{id}@example.org"),
            origin: "put",
        };
        program.tell(&format!("put\t{id}\tBob\t{}\t{age}\t{}", user.last, user.email));
        self.0.insert(id, user);
        assert_eq!(program.ask(&format!("get\t{id}")), self.v2()[&id]);
    }

    fn remove(&mut self, program: &mut Program, id: u64) {
        program.tell(&format!("remove\t{id}"));
        self.0.remove(&id);
        assert_eq!(program.ask(&format!("get\t{id}")), "none");
    }
}

const V1: &str = "old-binary-v1";
const V2: &str = "old-binary-v2";

#[test]
fn the_old_program_reads_and_writes_every_record_of_an_open_migration() {
    let scratch = Scratch::new("old-binary");
    let path = scratch.path().join("store");
    let mut users = Users::default();

    let mut old = Program::open(V1, &path);
    for id in 0..150 {
        users.put_by_v1(&mut old, id, 30);
    }
    assert_eq!(old.all(), users.v1());
    old.close();

    // The new program begins, copies a part, writes on both sides of where the backfill stands.
    let mut new = Program::open(V2, &path);
    assert_eq!(new.ask("begin"), "open");
    assert_eq!(new.ask("step\t60"), "open");
    for id in (0..150).step_by(5).chain(1000..1010) {
        users.put_by_v2(&mut new, id, 40);
    }
    for id in [7, 10, 77, 110, 1003] {
        users.remove(&mut new, id);
    }
    assert_eq!(new.all(), users.v2());
    new.close();

    // The old program comes by while the backfill is half done.
    let mut old = Program::open(V1, &path);
    assert_eq!(old.all(), users.v1());
    for id in (0..150).step_by(3).filter(|id| users.0.contains_key(id)).collect::<Vec<_>>() {
        users.put_by_v1(&mut old, id, 50);
    }
    users.put_by_v1(&mut old, 1001, 51);
    for id in [2, 5, 10, 1002] {
        users.remove(&mut old, id);
    }
    // 7 was removed by the new program; 1002 just now: new records, with nothing to merge with.
    for id in [7, 1002, 2000, 2001] {
        users.put_by_v1(&mut old, id, 52);
    }
    assert_eq!(old.all(), users.v1());
    old.close();

    // The new program finds the old one's writes; what it alone knows is intact; merges were made.
    let mut new = Program::open(V2, &path);
    assert_eq!(new.all(), users.v2());
    let merged = users.0.values().filter(|user| user.origin == "merge").count();
    let untouched = users.0.values().filter(|user| user.origin == "put").count();
    assert!(merged >= 10 && untouched >= 20, "the test tests something: {merged}, {untouched}");
    assert_eq!(new.ask("backfill"), "complete");
    assert_eq!(new.all(), users.v2(), "whether the backfill has passed cannot be seen");
    users.put_by_v2(&mut new, 3, 41);
    users.put_by_v2(&mut new, 3000, 41);
    users.remove(&mut new, 4);
    assert_eq!(new.ask("rollback"), "rolled back");
    assert_eq!(new.all(), users.v2());
    new.close();

    // After the rollback the old program reads and writes every record.
    let mut old = Program::open(V1, &path);
    assert_eq!(old.all(), users.v1());
    for (id, user) in users.v1() {
        assert_eq!(old.ask(&format!("get\t{id}")), user);
    }
    for id in users.0.keys().copied().collect::<Vec<_>>() {
        users.put_by_v1(&mut old, id, 60);
    }
    users.remove(&mut old, 6);
    users.put_by_v1(&mut old, 4000, 61);
    assert_eq!(old.all(), users.v1());
    old.close();

    let mut new = Program::open(V2, &path);
    assert_eq!(new.all(), users.v2());
    users.put_by_v2(&mut new, 8, 42);
    assert_eq!(new.ask("resume"), "complete");
    assert_eq!(new.all(), users.v2());
    assert_eq!(new.ask("verify"), "clean");
    assert_eq!(new.ask("contract"), "contracted");
    assert_eq!(new.all(), users.v2());
    assert_eq!(new.ask("verify"), "clean");
    new.close();

    let (_, said) = Program::start(V1, &path);
    assert!(said.starts_with("version error: table users, version 1: retired"), "{said}");
    assert!(said.contains("version 2 is the oldest that can still be read"), "{said}");
    let mut new = Program::open(V2, &path);
    assert_eq!(new.all(), users.v2());
    new.close();
}
