//! A disk that fills up under an engine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use exuvia::EngineErrorKind;
use exuvia::engine::EngineKind;

use crate::scratch::Scratch;

/// A small file system of its own; `None` where mounting is not allowed.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf, megabytes: u32) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let size = format!("size={megabytes}m");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "exuvia-test"]).arg(&path).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(path));
        }
        println!("skipped: mounting a file system is not allowed");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_under_sled_is_a_typed_error_and_loses_nothing_flushed() {
    fill(EngineKind::Sled);
}

#[cfg(feature = "fjall")]
#[test]
fn a_full_disk_under_fjall_is_a_typed_error_and_loses_nothing_flushed() {
    fill(EngineKind::Fjall);
}

fn fill(kind: EngineKind) {
    let open = |path: &PathBuf| kind.open(path, 16 << 20);
    // Engines fail in different ways for small and for large values.
    for size in [400_usize, 20_000, 45_000] {
        let scratch = Scratch::new("full");
        let Some(mount) = Mount::new(scratch.path().join("disk"), 48) else {
            return;
        };
        let path = mount.0.join("store");
        let ballast = mount.0.join("ballast");
        fs::write(&ballast, vec![1; 12 << 20]).unwrap();
        let record = |n: u32| vec![n as u8; size];

        let engine = open(&path).unwrap();
        let tree = engine.tree("t").unwrap();
        let (mut flushed, mut error) = (0, None);
        for n in 0_u32..100_000 {
            let written = tree.put(&n.to_be_bytes(), &record(n));
            let result = written.and_then(|()| if n % 4 == 3 { engine.flush() } else { Ok(()) });
            if let Err(e) = result {
                error = Some(e);
                break;
            }
            flushed = if n % 4 == 3 { n + 1 } else { flushed };
        }
        let error = error.expect("the disk is full");
        assert_eq!(error.kind(), EngineErrorKind::NoSpace, "{size}: {error}");
        assert!(flushed > 0);
        let later = tree.put(b"more", &record(0)).err().map(|e| e.kind());
        assert!(
            matches!(later, Some(EngineErrorKind::Poisoned | EngineErrorKind::NoSpace)),
            "{size}: {later:?}"
        );
        assert_eq!(&*tree.get(&0_u32.to_be_bytes()).unwrap().unwrap(), &*record(0), "reads go on");

        drop((tree, engine));
        fs::remove_file(&ballast).unwrap();
        let engine = open(&path).unwrap();
        let tree = engine.tree("t").unwrap();
        for n in 0..flushed {
            assert!(
                tree.get(&n.to_be_bytes()).unwrap().is_some_and(|value| *value == *record(n)),
                "{size}: {n}"
            );
        }
        tree.put(b"more", b"room again").unwrap();
        engine.flush().unwrap();
    }
}
