//! What a power failure leaves of a [`Disk`]: all that is durable, and a random part of what is not.

use std::collections::{BTreeMap, HashMap};

use super::disk::{Change, Disk, FileNode, Image, Node, Order, ROOT, put};
use super::rng::Rng;

const SECTOR: usize = 512;

impl Disk {
    /// One of the states in which a power failure at this moment may leave the disk.
    pub fn crash(&self, rng: &mut Rng) -> Image {
        // How much of what waits gets through varies from image to image: rarely all, rarely nothing.
        let survive = [0, 10, 50, 50, 90, 97, 100][rng.within(0, 6) as usize];
        let mut dirs = self.durable_dirs();
        match self.order {
            Order::Strict => {
                for op in &self.waiting {
                    if rng.chance(survive) {
                        op.apply(&mut dirs);
                    }
                }
            }
            Order::Journal => {
                let kept = rng.within(0, self.waiting.len() as u64) as usize;
                self.waiting.iter().take(kept).for_each(|op| op.apply(&mut dirs));
            }
        }
        let mut image = Image::new();
        self.walk(ROOT, "", &dirs, survive, rng, &mut image);
        image
    }

    fn walk(
        &self,
        dir: u64,
        prefix: &str,
        dirs: &HashMap<u64, BTreeMap<String, u64>>,
        survive: u64,
        rng: &mut Rng,
        image: &mut Image,
    ) {
        for (name, ino) in dirs.get(&dir).into_iter().flatten() {
            let path = format!("{prefix}{name}");
            match self.node(*ino) {
                Some(Node::Dir(_)) => {
                    image.insert(path.clone(), None);
                    self.walk(*ino, &format!("{path}/"), dirs, survive, rng, image);
                }
                Some(Node::File(file)) => {
                    image.insert(path, Some(file.crash(survive, rng)));
                }
                None => {}
            }
        }
    }
}

impl FileNode {
    fn crash(&self, survive: u64, rng: &mut Rng) -> Vec<u8> {
        let mut content = self.durable.clone();
        let mut size = content.len();
        let sized = rng.within(0, self.waiting.len() as u64) as usize;
        for (index, change) in self.waiting.iter().enumerate() {
            match change {
                Change::Resize(len) if index < sized => {
                    content.resize(*len, 0);
                    size = *len;
                }
                Change::Resize(_) => {}
                Change::Write { at, bytes, .. } => {
                    if index < sized {
                        size = size.max(at + bytes.len());
                    }
                    tear(&mut content, *at, bytes, survive, rng);
                }
            }
        }
        content.resize(size, 0);
        content
    }
}

/// Writes what gets through of one waiting write: all, nothing, or some of its sectors.
fn tear(content: &mut Vec<u8>, at: usize, bytes: &[u8], survive: u64, rng: &mut Rng) {
    let torn = bytes.len() > SECTOR && survive > 0 && survive < 100 && rng.chance(20);
    if !torn {
        if rng.chance(survive) {
            put(content, at, bytes);
        }
        return;
    }
    let mut start = 0;
    while start < bytes.len() {
        // Sectors lie on the disk, not in the write: the first piece may be shorter.
        let end = (start + SECTOR - (at + start) % SECTOR).min(bytes.len());
        if rng.chance(50) {
            put(content, at + start, &bytes[start..end]);
        }
        start = end;
    }
}
