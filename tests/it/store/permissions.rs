//! Untrusted places: modes of what is made, links and pipes in the place of the store's own files, paths.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use exuvia::engine::EngineKind;
use exuvia::{Error, Store, Table};

use crate::kit::errors::says;
use crate::kit::kinds::kinds;
use crate::kit::scratch::{Scratch, child, child_argument};
use crate::kit::types::*;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

fn a_store(kind: EngineKind, path: &Path, private: bool) -> Store {
    let store = Store::options().engine(kind).private(private).open(path).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    users.put(&1, &v1("Ann N1", 30)).unwrap();
    store
}

#[test]
fn what_is_made_is_closed_to_others_unless_the_options_say_otherwise() {
    let test = "store::permissions::what_is_made_is_closed_to_others_unless_the_options_say_otherwise";
    let Some(root) = child_argument() else {
        let scratch = Scratch::new("private");
        // A umask that closes nothing; it is the process's, so it takes one of its own.
        let run = format!("umask 0; exec \"$0\" {test} --exact --nocapture --test-threads=1");
        let done = Command::new("sh")
            .args(["-c", &run])
            .arg(std::env::current_exe().unwrap())
            .env("EXUVIA_TEST_CHILD", scratch.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        return;
    };
    let root = Path::new(&root);
    for kind in kinds() {
        let path = root.join(kind.name());
        let store = a_store(kind, &path, true);
        store.copy_to(root.join(format!("copy-{}", kind.name())), kind).unwrap();
        store.backup(root.join(format!("backup-{}", kind.name()))).unwrap();
        store.close().unwrap();
        Store::salvage(&path, root.join(format!("salvage-{}", kind.name())), None).unwrap();
        Store::restore(root.join(format!("backup-{}", kind.name())), root.join(format!("r-{}", kind.name())))
            .unwrap();
        for place in
            ["", "copy-", "backup-", "salvage-", "r-"].map(|name| root.join(format!("{name}{}", kind.name())))
        {
            assert_eq!(mode(&place), 0o700, "{}", place.display());
            assert_eq!(mode(&place.join(kind.name())), 0o700, "{}", place.display());
            for own in
                ["EXUVIA", "LOCK", "BACKUP"].map(|name| place.join(name)).iter().filter(|own| own.exists())
            {
                assert_eq!(mode(own), 0o600, "{}", own.display());
            }
        }
        let open = root.join(format!("open-{}", kind.name()));
        a_store(kind, &open, false).close().unwrap();
        assert_eq!((mode(&open), mode(&open.join(kind.name()))), (0o777, 0o777));
        assert_eq!((mode(&open.join("EXUVIA")), mode(&open.join("LOCK"))), (0o666, 0o666));
        // Files that are made anew are as open as the old ones.
        for (place, mode_of_both) in [(&path, 0o700), (&open, 0o777)] {
            Store::compact(place).unwrap();
            assert_eq!(mode(&place.join(kind.name())), mode_of_both);
        }
        // What is there is left as it is.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        Store::open(&path).unwrap().close().unwrap();
        assert_eq!(mode(&path), 0o750);
    }
}

#[test]
fn no_link_is_followed_to_a_file_of_the_stores_own() {
    let scratch = Scratch::new("links");
    let path = scratch.path().join("store");
    a_store(EngineKind::Sled, &path, true).close().unwrap();
    let aside = scratch.path().join("aside");
    for name in ["EXUVIA", "LOCK", "sled"] {
        fs::rename(path.join(name), &aside).unwrap();
        symlink(&aside, path.join(name)).unwrap();
        let refused = Store::open(&path).unwrap_err();
        assert!(matches!(refused, Error::Path { .. }), "{refused:?}");
        says(&refused, &["symbolic link"]);
        fs::remove_file(path.join(name)).unwrap();
        fs::rename(&aside, path.join(name)).unwrap();
    }
    // Nothing is written through a link into a new directory, either.
    let new = scratch.path().join("new");
    let target = scratch.path().join("target");
    for name in ["EXUVIA.new", "LOCK"] {
        fs::create_dir(&new).unwrap();
        fs::write(&target, "precious").unwrap();
        symlink(&target, new.join(name)).unwrap();
        assert!(matches!(Store::open(&new).unwrap_err(), Error::Path { .. }), "{name}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious", "{name}");
        fs::remove_dir_all(&new).unwrap();
    }
    // The store's own directory may be a link.
    symlink(&path, scratch.path().join("link")).unwrap();
    let store = Store::open(scratch.path().join("link")).unwrap();
    assert!(matches!(Store::open(&path).unwrap_err(), Error::Locked { .. }), "it is the same store");
    store.close().unwrap();
}

#[test]
fn no_pipe_is_waited_for_and_no_file_of_any_length_is_read() {
    let scratch = Scratch::new("pipes");
    let path = scratch.path().join("store");
    a_store(EngineKind::Sled, &path, true).close().unwrap();
    let mark = fs::read(path.join("EXUVIA")).unwrap();
    for name in ["EXUVIA", "LOCK"] {
        fs::remove_file(path.join(name)).unwrap();
        if !Command::new("mkfifo").arg(path.join(name)).status().is_ok_and(|made| made.success()) {
            println!("skipped: there is no mkfifo");
            return;
        }
        assert!(matches!(Store::open(&path).unwrap_err(), Error::Path { .. }), "{name}");
        fs::remove_file(path.join(name)).unwrap();
        fs::write(path.join(name), &mark).unwrap();
    }
    // As long as a disk, and no block of it.
    let file = fs::File::create(path.join("EXUVIA")).unwrap();
    file.set_len(1 << 40).unwrap();
    says(&Store::open(&path).unwrap_err(), &["EXUVIA", "more than 4096 bytes"]);
    fs::write(path.join("EXUVIA"), &mark).unwrap();
    assert!(Store::open(&path).is_ok());
}

/// A store goes on where it was opened, wherever its process goes.
#[test]
fn a_path_is_resolved_when_it_is_opened() {
    let test = "store::permissions::a_path_is_resolved_when_it_is_opened";
    let Some(root) = child_argument() else {
        let scratch = Scratch::new("chdir");
        let done = child(test, scratch.path().to_str().unwrap()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(scratch.path().join("store").join("EXUVIA").is_file());
        return;
    };
    fs::create_dir(Path::new(&root).join("elsewhere")).unwrap();
    std::env::set_current_dir(&root).unwrap();
    let store = a_store(EngineKind::Sled, Path::new("store"), true);
    std::env::set_current_dir("elsewhere").unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    users.put(&2, &v1("Ann N2", 30)).unwrap();
    assert!(store.space().unwrap().bytes_free.is_some());
    store.close().unwrap();
    assert_eq!(fs::read_dir(".").unwrap().count(), 0, "nothing was made here");
}
