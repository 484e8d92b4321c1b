//! The sled engine where sled itself gives up: damaged files, directories in use.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use exuvia::engine::{Engine, SledEngine, SledOptions};
use exuvia::engine::{EngineError, EngineErrorKind};

use crate::kit::damaged_files::{Subject, campaign, store};
use crate::kit::scratch::{Scratch, child, child_argument};

fn open(path: &Path) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(Arc::new(SledEngine::open(path, SledOptions::new().cache_bytes(16 << 20))?))
}

fn is_snapshot(file: &Path) -> bool {
    file.file_name().unwrap().to_str().unwrap().starts_with("snap")
}

fn damaged(test: &'static str, snapshot: bool) {
    let subject = Subject {
        test,
        open,
        flips: |file| if file == Path::new("db") { 25 } else { 5 },
        // With the snapshot of an orderly close every loss is noticed. Without one sled takes damage for the torn end of
        // its log, and what came after it is gone without a word.
        notices: if snapshot { |file| !is_snapshot(file) } else { |_| false },
    };
    campaign(&subject, |path| {
        store(path, open);
        let blobs = path.join("blobs").read_dir().unwrap().count();
        assert_eq!(blobs, 0, "the limits keep every page in the log");
        for file in path.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            if !snapshot && is_snapshot(&file) {
                fs::remove_file(file).unwrap();
            }
        }
    });
}

#[test]
fn damaged_files_give_data_or_typed_errors() {
    damaged("engine::sled::damaged_files_give_data_or_typed_errors", true);
}

#[test]
fn damaged_files_without_a_snapshot_give_data_or_typed_errors() {
    damaged("engine::sled::damaged_files_without_a_snapshot_give_data_or_typed_errors", false);
}

fn kind<T>(result: Result<T, EngineError>) -> EngineErrorKind {
    result.err().unwrap().kind()
}

#[test]
fn one_process_and_one_handle_at_a_time() {
    if let Some(path) = child_argument() {
        println!("child: {:?}", open(Path::new(&path)).map_err(|e| e.kind()).err());
        return;
    }
    let scratch = Scratch::new("locked");
    let engine = open(scratch.path()).unwrap();
    assert_eq!(kind(open(scratch.path())), EngineErrorKind::Locked);
    let elsewhere = || {
        let path = scratch.path().to_str().unwrap();
        let output = child("engine::sled::one_process_and_one_handle_at_a_time", path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(elsewhere().contains("child: Some(Locked)"));
    engine.tree("t").unwrap().put(b"k", b"v").unwrap();
    drop(engine);
    assert!(elsewhere().contains("child: None"));
}

#[test]
fn unusable_paths_are_typed_errors() {
    let scratch = Scratch::new("paths");
    let file = scratch.path().join("file");
    fs::write(&file, b"not a store").unwrap();
    assert_eq!(kind(open(&file)), EngineErrorKind::Io);
    assert_eq!(kind(open(&file.join("below"))), EngineErrorKind::Io);
    assert_eq!(fs::read(&file).unwrap(), b"not a store");
    // sysfs refuses to root, too; for anybody else a directory without permissions does.
    assert_eq!(kind(open(Path::new("/sys/exuvia"))), EngineErrorKind::Io);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let closed = scratch.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
        match open(&closed) {
            Ok(_) => println!("skipped: permissions do not bind this user"),
            Err(e) => assert_eq!(e.kind(), EngineErrorKind::Io),
        }
    }
}
