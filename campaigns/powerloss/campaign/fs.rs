//! The FUSE face of [`Disk`]: every request takes one lock, and any change may be the last one.
//!
//! Files are opened with direct I/O, so that a write reaches the disk model at once and in order;
//! the kernel's page cache holds nothing back. `sync_file_range` therefore arrives as nothing at
//! all, which is what it promises about a power failure. `flock` is left to the kernel.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{
    BackgroundSession, Config, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    IoctlFlags, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::attr::{self, attr};
use super::disk::{DirNode, Disk, FileNode, Node, ROOT};

/// Nothing is cached in the kernel: the model may be replaced under it.
const TTL: Duration = Duration::ZERO;

/// Writes to the middle of a file may be under way together, as on a real disk.
const OPENED: FopenFlags = FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

/// Called before each change, under the disk's lock: what it sees is one moment.
pub type Observer = Box<dyn FnMut(&Disk) + Send>;

pub struct Shared {
    pub disk: Disk,
    pub observer: Option<Observer>,
}

impl Shared {
    fn about_to_change(&mut self) {
        if let Some(mut observer) = self.observer.take() {
            observer(&self.disk);
            self.observer = Some(observer);
        }
    }
}

pub type SharedDisk = Arc<Mutex<Shared>>;

pub fn lock(shared: &SharedDisk) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Mounts `disk` at `at` through /dev/fuse itself (needs root; neither libfuse nor fusermount).
pub fn mount(disk: Disk, at: &Path) -> io::Result<(SharedDisk, BackgroundSession)> {
    let shared = Arc::new(Mutex::new(Shared { disk, observer: None }));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("powerloss".into()), MountOption::RW];
    config.n_threads = Some(4);
    let session = fuser::spawn_mount2(Volume(shared.clone()), at, &config)?;
    Ok((shared, session))
}

struct Volume(SharedDisk);

impl Volume {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.0)
    }

    /// For a synchronous inode: the time between a change and its being durable, in which power may fail
    /// and other threads may write.
    fn settle<'a>(
        &'a self,
        mut shared: MutexGuard<'a, Shared>,
        ino: u64,
        make_durable: impl FnOnce(&mut Disk),
    ) {
        let binds = match shared.disk.node(ino) {
            Some(Node::Dir(_)) => shared.disk.is_synchronous_dir(ino),
            _ => shared.disk.is_synchronous(ino),
        };
        if binds {
            drop(shared);
            std::thread::yield_now();
            shared = self.lock_to_change();
            make_durable(&mut shared.disk);
        }
    }

    fn lock_to_change(&self) -> MutexGuard<'_, Shared> {
        let mut shared = self.lock();
        shared.about_to_change();
        shared
    }
}

fn text(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

impl Filesystem for Volume {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let shared = self.lock();
        let found = shared.disk.child(parent.0, &text(name));
        match found.and_then(|ino| attr(&shared.disk, ino)) {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attr(&self.lock().disk, ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut shared = self.lock_to_change();
        if let Some(size) = size {
            shared.disk.resize(ino.0, size as usize);
            self.settle(shared, ino.0, |disk| disk.sync_file(ino.0, true));
            shared = self.lock();
        }
        match attr(&shared.disk, ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let mut shared = self.lock_to_change();
        let ino = shared.disk.link(parent.0, &text(name), Node::Dir(DirNode::default()));
        self.settle(shared, parent.0, |disk| disk.sync_dir(parent.0));
        let shared = self.lock();
        match attr(&shared.disk, ino) {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => reply.error(Errno::EIO),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let mut shared = self.lock_to_change();
        let ino = shared.disk.link(parent.0, &text(name), Node::File(FileNode::default()));
        self.settle(shared, parent.0, |disk| disk.sync_dir(parent.0));
        let shared = self.lock();
        match attr(&shared.disk, ino) {
            Some(attr) => {
                reply.created(&TTL, &attr, Generation(0), FileHandle(ino), OPENED);
            }
            None => reply.error(Errno::EIO),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut shared = self.lock_to_change();
        let found = shared.disk.unlink(parent.0, &text(name));
        self.settle(shared, parent.0, |disk| disk.sync_dir(parent.0));
        done(found, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut shared = self.lock_to_change();
        let found = shared.disk.unlink(parent.0, &text(name));
        self.settle(shared, parent.0, |disk| disk.sync_dir(parent.0));
        done(found, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (text(name), text(new_name));
        let mut shared = self.lock_to_change();
        let found = shared.disk.rename((parent.0, &from), (new_parent.0, &to));
        self.settle(shared, new_parent.0, |disk| disk.sync_dir(new_parent.0));
        done(found, reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(ino.0), OPENED);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.lock().disk.node(ino.0) {
            Some(Node::File(file)) => {
                let start = (offset as usize).min(file.live.len());
                let end = (start + size as usize).min(file.live.len());
                reply.data(&file.live[start..end]);
            }
            _ => reply.error(Errno::EISDIR),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut shared = self.lock_to_change();
        let Some(write) = shared.disk.write(ino.0, offset as usize, data) else {
            return reply.error(Errno::EIO);
        };
        self.settle(shared, ino.0, |disk| disk.sync_write(ino.0, write));
        reply.written(data.len() as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, data_only: bool, reply: ReplyEmpty) {
        self.lock_to_change().disk.sync_file(ino.0, data_only);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.lock_to_change().disk.sync_dir(ino.0);
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let shared = self.lock();
        let Some(Node::Dir(dir)) = shared.disk.node(ino.0) else {
            return reply.error(Errno::ENOTDIR);
        };
        let mut entries = vec![(ino.0, FileType::Directory, "."), (ROOT, FileType::Directory, "..")];
        for (name, child) in &dir.live {
            let kind = match shared.disk.node(*child) {
                Some(Node::Dir(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            entries.push((*child, kind, name));
        }
        for (index, (child, kind, name)) in entries.into_iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(child), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn ioctl(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        command: u32,
        input: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        match attr::ioctl(&self.0, ino.0, command, input) {
            Some(answer) => reply.ioctl(0, &answer),
            None => reply.error(Errno::ENOTTY),
        }
    }
}

fn done(found: bool, reply: ReplyEmpty) {
    if found {
        reply.ok();
    } else {
        reply.error(Errno::ENOENT);
    }
}
