//! One command in a line of standard input, one answer in a line of standard output. Fields are separated by tabs,
//! records by semicolons.

use std::io::{BufRead, Write};

use exuvia::{Error, Result, Store, Table, Version};

pub trait Fields: Version {
    fn of(fields: &[&str]) -> Self;
    fn show(&self) -> String;
}

/// Serves the store in the directory that the first argument names until the input ends, then closes it. `more`
/// knows the program's further commands.
pub fn serve<V: Fields>(more: impl Fn(&Store, &Table<u64, V>, &[&str]) -> Result<String>) {
    let path = std::env::args_os().nth(1).expect("the directory of the store");
    let opened = Store::open(path).and_then(|store| Ok((store.table::<u64, V>("users")?, store)));
    let (users, store) = match opened {
        Ok(opened) => opened,
        Err(e) => return answer(Err(e)),
    };
    answer(Ok("open".to_owned()));
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split('\t').collect();
        answer(match words.as_slice() {
            ["put", id, fields @ ..] => users.put(&number(id), &V::of(fields)).map(|()| "done".to_owned()),
            ["get", id] => users.get(&number(id)).map(|user| user.map_or("none".to_owned(), |u| u.show())),
            ["remove", id] => users.remove(&number(id)).map(|()| "done".to_owned()),
            ["all"] => all(&users),
            other => more(&store, &users, other),
        });
    }
    drop(users);
    answer(store.close().map(|()| "closed".to_owned()));
}

pub fn number(word: &str) -> u64 {
    word.parse().unwrap()
}

fn all<V: Fields>(users: &Table<u64, V>) -> Result<String> {
    let lines: Result<Vec<String>> =
        users.scan(..).map(|next| next.map(|(id, user)| format!("{id}\t{}", user.show()))).collect();
    Ok(lines?.join(";"))
}

fn answer(answer: Result<String>) {
    let text = match answer {
        Ok(text) => text,
        Err(e @ Error::Version { .. }) => format!("version error: {e}"),
        Err(e) => format!("error: {e}"),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap();
}
