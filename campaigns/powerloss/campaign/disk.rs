//! A disk that loses power: what a file system owes after a crash, and nothing more.
//!
//! 1. Every file has live content, durable content (as of its last fsync), and the list of writes
//!    and truncations since then. Every directory has live and durable entries; changes of entries
//!    since the last fsync of their directory wait in one list, in the order in which they were made.
//! 2. A crash ([`super::crash`]) keeps all that is durable and, of what waits, a subset: a write may be lost, kept, or
//!    torn at 512-byte sectors, whatever became of its neighbours; the file's size is that after some
//!    prefix of the waiting operations, whether or not their data was kept.
//! 3. What becomes of waiting directory entries depends on [`Order`].
//! 4. A change of an inode flagged synchronous (`FS_SYNC_FL`, `chattr +S`) is made durable before it
//!    returns, that change only; until then it waits like any other and can be torn. What is created
//!    in a flagged directory inherits the flag, as on ext4.

use std::collections::{BTreeMap, HashMap};

use super::entry::EntryOp;

pub const ROOT: u64 = 1;

/// How directory entries survive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Only an fsync of the directory makes an entry durable; without it any subset survives.
    Strict,
    /// One journal: entries survive as a prefix of their history, and an fsync of a new file makes
    /// its entry, and all that happened before it, durable.
    Journal,
}

#[derive(Clone)]
pub enum Change {
    Write { id: u64, at: usize, bytes: Vec<u8> },
    Resize(usize),
}

#[derive(Clone, Default)]
pub struct FileNode {
    pub live: Vec<u8>,
    pub durable: Vec<u8>,
    pub waiting: Vec<Change>,
    waiting_bytes: usize,
}

#[derive(Clone, Default)]
pub struct DirNode {
    pub live: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
}

#[derive(Clone)]
pub enum Node {
    File(FileNode),
    Dir(DirNode),
}

/// A plain directory tree: relative path to content, `None` for a directory. Parents sort first.
pub type Image = BTreeMap<String, Option<Vec<u8>>>;

pub struct Disk {
    nodes: HashMap<u64, Node>,
    synchronous: HashMap<u64, bool>,
    pub waiting: Vec<EntryOp>,
    next_ino: u64,
    writes: u64,
    /// The most that one file had waiting at any time, in bytes.
    pub most_waiting: usize,
    /// The most entries that there were in directories named `blobs` at any time.
    pub most_blobs: usize,
    pub order: Order,
    flag_binds_dirs: bool,
}

impl Disk {
    /// `flag_binds_dirs`: the synchronous flag binds a directory's entries (ext4), or only the data of
    /// the files that inherit it (XFS).
    pub fn new(order: Order, flag_binds_dirs: bool) -> Self {
        let mut disk = Disk {
            nodes: HashMap::new(),
            synchronous: HashMap::new(),
            waiting: Vec::new(),
            next_ino: ROOT + 1,
            writes: 0,
            most_waiting: 0,
            most_blobs: 0,
            order,
            flag_binds_dirs,
        };
        disk.nodes.insert(ROOT, Node::Dir(DirNode::default()));
        disk
    }

    pub fn node(&self, ino: u64) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    /// How many entries there are in directories of this name, anywhere.
    fn entries_in(&self, wanted: &str) -> usize {
        let entries = |node: &Node| match node {
            Node::Dir(dir) => dir.live.get(wanted).and_then(|ino| match self.nodes.get(ino) {
                Some(Node::Dir(found)) => Some(found.live.len()),
                _ => None,
            }),
            Node::File(_) => None,
        };
        self.nodes.values().filter_map(entries).sum()
    }

    pub fn child(&self, dir: u64, name: &str) -> Option<u64> {
        match self.nodes.get(&dir) {
            Some(Node::Dir(d)) => d.live.get(name).copied(),
            _ => None,
        }
    }

    /// Whether a change of entries in `dir` is durable when it returns.
    pub fn is_synchronous_dir(&self, dir: u64) -> bool {
        self.flag_binds_dirs && self.is_synchronous(dir)
    }

    pub fn is_synchronous(&self, ino: u64) -> bool {
        self.synchronous.get(&ino).copied().unwrap_or(false)
    }

    pub fn set_synchronous(&mut self, ino: u64, on: bool) {
        self.synchronous.insert(ino, on);
    }

    /// Starts again with `image` as the only content, all of it durable. Inode numbers are not used again,
    /// so that whatever the kernel remembers of the old tree cannot be taken for the new one.
    pub fn load(&mut self, image: &Image) {
        self.nodes.clear();
        self.synchronous.clear();
        self.nodes.insert(ROOT, Node::Dir(DirNode::default()));
        for (path, content) in image {
            let mut dir = ROOT;
            let mut parts: Vec<&str> = path.split('/').collect();
            let name = parts.pop().unwrap_or_default();
            for part in parts {
                dir = self.child(dir, part).unwrap_or(ROOT);
            }
            let node = match content {
                None => Node::Dir(DirNode::default()),
                Some(bytes) => Node::File(FileNode {
                    live: bytes.clone(),
                    durable: bytes.clone(),
                    ..FileNode::default()
                }),
            };
            self.link(dir, name, node);
        }
        for node in self.nodes.values_mut() {
            if let Node::Dir(d) = node {
                d.durable = d.live.clone();
            }
        }
        self.waiting.clear();
    }

    pub fn link(&mut self, dir: u64, name: &str, node: Node) -> u64 {
        let ino = self.next_ino;
        self.next_ino += 1;
        self.nodes.insert(ino, node);
        self.synchronous.insert(ino, self.is_synchronous(dir));
        if let Some(Node::Dir(d)) = self.nodes.get_mut(&dir) {
            d.live.insert(name.to_owned(), ino);
        }
        self.most_blobs = self.most_blobs.max(self.entries_in("blobs"));
        self.waiting.push(EntryOp::Link { dir, name: name.to_owned(), ino });
        ino
    }

    pub fn unlink(&mut self, dir: u64, name: &str) -> bool {
        let gone = match self.nodes.get_mut(&dir) {
            Some(Node::Dir(d)) => d.live.remove(name).is_some(),
            _ => false,
        };
        if gone {
            self.waiting.push(EntryOp::Unlink { dir, name: name.to_owned() });
        }
        gone
    }

    pub fn rename(&mut self, from: (u64, &str), to: (u64, &str)) -> bool {
        let Some(ino) = self.child(from.0, from.1) else {
            return false;
        };
        if let Some(Node::Dir(d)) = self.nodes.get_mut(&from.0) {
            d.live.remove(from.1);
        }
        if let Some(Node::Dir(d)) = self.nodes.get_mut(&to.0) {
            d.live.insert(to.1.to_owned(), ino);
        }
        self.waiting.push(EntryOp::Rename {
            from: (from.0, from.1.to_owned()),
            to: (to.0, to.1.to_owned()),
            ino,
        });
        true
    }

    /// Returns the write's own number, for [`Disk::sync_write`].
    pub fn write(&mut self, ino: u64, at: usize, bytes: &[u8]) -> Option<u64> {
        let Some(Node::File(file)) = self.nodes.get_mut(&ino) else {
            return None;
        };
        self.writes += 1;
        put(&mut file.live, at, bytes);
        file.waiting_bytes += bytes.len();
        self.most_waiting = self.most_waiting.max(file.waiting_bytes);
        file.waiting.push(Change::Write { id: self.writes, at, bytes: bytes.to_vec() });
        Some(self.writes)
    }

    pub fn resize(&mut self, ino: u64, len: usize) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&ino) {
            file.live.resize(len, 0);
            file.waiting.push(Change::Resize(len));
        }
    }

    /// Makes one write durable, and no other: what the kernel does for a synchronous inode.
    pub fn sync_write(&mut self, ino: u64, write: u64) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&ino) {
            let found =
                file.waiting.iter().position(|c| matches!(c, Change::Write { id, .. } if *id == write));
            if let Some(index) = found
                && let Change::Write { at, bytes, .. } = file.waiting.remove(index)
            {
                put(&mut file.durable, at, &bytes);
                file.waiting_bytes -= bytes.len();
            }
        }
        self.commit_entry_of(ino, true);
    }

    /// fsync, or with `data_only` fdatasync: the data, and the size that is needed to read it.
    pub fn sync_file(&mut self, ino: u64, data_only: bool) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&ino) {
            file.waiting_bytes = 0;
            let changes = std::mem::take(&mut file.waiting);
            for change in changes {
                match change {
                    Change::Write { at, bytes, .. } => put(&mut file.durable, at, &bytes),
                    Change::Resize(len) => file.durable.resize(len, 0),
                }
            }
        }
        self.commit_entry_of(ino, data_only);
    }

    fn commit_entry_of(&mut self, ino: u64, data_only: bool) {
        if self.order == Order::Journal
            && let Some(last) = self.waiting.iter().rposition(|op| op.names(ino, data_only))
        {
            self.commit_entries(|index, _| index <= last);
        }
    }

    pub fn sync_dir(&mut self, ino: u64) {
        let last = self.waiting.iter().rposition(|op| op.touches(ino));
        match (self.order, last) {
            (Order::Strict, _) => self.commit_entries(|_, op| op.touches(ino)),
            (Order::Journal, Some(last)) => self.commit_entries(|index, _| index <= last),
            (Order::Journal, None) => {}
        }
    }

    fn commit_entries(&mut self, which: impl Fn(usize, &EntryOp) -> bool) {
        let mut dirs = self.durable_dirs();
        let waiting = std::mem::take(&mut self.waiting);
        for (index, op) in waiting.into_iter().enumerate() {
            if which(index, &op) {
                op.apply(&mut dirs);
            } else {
                self.waiting.push(op);
            }
        }
        for (ino, entries) in dirs {
            if let Some(Node::Dir(d)) = self.nodes.get_mut(&ino) {
                d.durable = entries;
            }
        }
    }

    pub fn durable_dirs(&self) -> HashMap<u64, BTreeMap<String, u64>> {
        let dirs = self.nodes.iter().filter_map(|(ino, node)| match node {
            Node::Dir(d) => Some((*ino, d.durable.clone())),
            Node::File(_) => None,
        });
        dirs.collect()
    }
}

pub fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}
