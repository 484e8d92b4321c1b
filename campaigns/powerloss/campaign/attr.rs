//! What a file says about itself, and the flag that makes it synchronous.

use std::time::UNIX_EPOCH;

use fuser::{FileAttr, FileType, INodeNo};

use super::disk::{Disk, Node};
use super::fs::{SharedDisk, lock};

const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
const FS_SYNC_FL: u32 = 0x8;
const FS_XFLAG_SYNC: u32 = 0x20;

pub fn attr(disk: &Disk, ino: u64) -> Option<FileAttr> {
    let (kind, size) = match disk.node(ino)? {
        Node::File(file) => (FileType::RegularFile, file.live.len() as u64),
        Node::Dir(_) => (FileType::Directory, 0),
    };
    Some(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: if kind == FileType::Directory { 0o755 } else { 0o644 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

/// Answers the calls behind `chattr`, and no other.
pub fn ioctl(shared: &SharedDisk, ino: u64, command: u32, input: &[u8]) -> Option<Vec<u8>> {
    let mut shared = lock(shared);
    let flags = |disk: &Disk, flag: u32| if disk.is_synchronous(ino) { flag } else { 0 };
    match (command, input) {
        (FS_IOC_GETFLAGS, _) => Some(flags(&shared.disk, FS_SYNC_FL).to_ne_bytes().to_vec()),
        // The kernel asks in this older form, 28 bytes with the flags first, before it sets any.
        (FS_IOC_FSGETXATTR, _) => {
            let mut answer = vec![0; 28];
            answer[..4].copy_from_slice(&flags(&shared.disk, FS_XFLAG_SYNC).to_ne_bytes());
            Some(answer)
        }
        (FS_IOC_SETFLAGS, [a, b, c, d, ..]) => {
            let flags = u32::from_ne_bytes([*a, *b, *c, *d]);
            shared.disk.set_synchronous(ino, flags & FS_SYNC_FL != 0);
            Some(Vec::new())
        }
        _ => None,
    }
}
