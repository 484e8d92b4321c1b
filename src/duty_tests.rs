//! See `duty`.

use std::sync::mpsc;

use super::*;

fn refused(duty: Duty) -> bool {
    duty.await_one(|| "a test".to_owned()).is_err()
}

#[test]
fn a_thread_does_not_wait_for_its_own_duty() {
    let (own, other) = (Duty::new(), Duty::new());
    assert!(!refused(own), "it is not on it yet");
    let twice = (own.begin(), own.begin());
    assert!(refused(own) && !refused(other));
    drop(twice.0);
    assert!(refused(own), "it is on it still");
    drop(twice.1);
    assert!(!refused(own));
    let on = own.begin();
    assert!(std::thread::spawn(move || !refused(own)).join().unwrap(), "another thread may wait");
    drop(on);
}

#[test]
fn threads_do_not_wait_for_each_other_in_a_ring() {
    let (first, middle, last) = (Duty::new(), Duty::new(), Duty::new());
    let _middle_waits_for = middle.begin();
    let waits = last.await_one(String::new).unwrap();
    let (say, heard) = mpsc::channel();
    let other = std::thread::spawn(move || {
        let _last_is = last.begin();
        // Over the middle, which waits for the last.
        say.send(refused(middle)).unwrap();
        say.send(refused(first)).unwrap();
    });
    assert!(heard.recv().unwrap());
    assert!(!heard.recv().unwrap());
    other.join().unwrap();
    drop(waits);
    let other = std::thread::spawn(move || {
        let _last_is = last.begin();
        refused(middle)
    });
    assert!(!other.join().unwrap(), "nobody waits any more");
}
