//! What sled's recovery will find, found without it and without a write: the same rules, but a read that fails is an error, and
//! damage within what was flushed is damage.
//!
//! sled's own recovery takes a read that fails for the end of the log, or leaves out the segment that it could not read. It
//! then zeroes the rest of the segment in which it ended, and all later ones. So:
//!
//! 1. The newest snapshot file is read, and the heads of all segments.
//! 2. The tail, from the segment up to which a head calls the log stable, has to be one piece: where it is not is the log's end.
//! 3. All segments from the snapshot on are read in the log's order, and applied to the snapshot's table of pages. A message
//!    that is damaged before the tail ends its segment only: the second half of a segment that was free may have been
//!    overwritten before its head.
//!
//! This is sled's own way (`pagecache/snapshot.rs` and `iterator.rs` of 0.34.7, whose version is pinned); the tests compare the
//! outcome with sled's, byte by byte. Beyond it, by the *mark* of what was synced:
//!
//! 4. The log has to reach the mark, and no message before it may be damaged, unless its segment is free: a loss of power may
//!    leave any part of what was being written over it. It is if it holds nothing of any page, or if a newer message is in it.
//!    Nor may a segment have lost its head: one that is free keeps its old one.
//! 5. The pages that sled reads while it opens have to be whole: sled would fail after it has written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::frame::{
    self, BATCH, CANCELED, CAP, FREE, LINK, LINK_BLOB, MESSAGE_HEADER_MAX, Message, Page, Place,
    SEGMENT_HEADER, Snapshot,
};

/// The pages with sled's trees and counter, which it reads at open.
const OWN_PAGES: usize = 2;
/// As much of a segment without a head is looked at for something that is not zero.
const PROBED_BYTES: usize = 64 << 10;

/// What is in a log, up to its end.
#[derive(Debug)]
pub(super) struct Found {
    /// Of the log's end.
    pub(super) snapshot: Snapshot,
    /// Whether the newest snapshot file is older.
    pub(super) advanced: bool,
    /// All snapshot files.
    pub(super) files: Vec<PathBuf>,
    /// The active segment: where it is, and what is in it, also beyond the log's end.
    pub(super) segment: Option<(u64, Vec<u8>)>,
    pub(super) file_len: u64,
}

impl Found {
    /// Where sled goes on.
    pub(super) fn next(&self, segment_bytes: usize) -> i64 {
        let size = segment_bytes as i64;
        let stable = self.snapshot.stable.unwrap_or(0);
        if self.snapshot.active.is_some() { stable } else { (stable + size - 1) / size * size }
    }
}

/// A fault that is not the medium's: what is damaged, and whether it is one by the mark of what was flushed only.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Flushed(String),
    Other(String),
}

type Sound = Result<(), Damage>;
type Looked<T> = Result<Result<T, Damage>, io::Error>;

macro_rules! sound {
    ($looked:expr) => {
        match $looked {
            Ok(found) => found,
            Err(damage) => return Ok(Err(damage)),
        }
    };
}

fn other<T>(what: impl Into<String>) -> Looked<T> {
    Ok(Err(Damage::Other(what.into())))
}

struct Log {
    file: File,
    len: u64,
    size: usize,
    directory: PathBuf,
}

impl Log {
    fn open(directory: &Path, size: usize) -> io::Result<Self> {
        let file = File::open(directory.join("db"))?;
        let len = file.metadata()?.len();
        Ok(Self { file, len, size, directory: directory.to_owned() })
    }

    fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(len);
        let mut bytes = vec![0; there];
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// What the file has of a segment.
    fn segment(&mut self, offset: u64) -> io::Result<Vec<u8>> {
        self.read(offset, self.size)
    }

    /// The heads, by the place of their segments; `None` where there is none that is whole.
    fn heads(&mut self) -> io::Result<Vec<(u64, Option<frame::SegmentHead>)>> {
        let mut heads = Vec::new();
        for offset in (0..self.len).step_by(self.size) {
            let bytes = self.read(offset, SEGMENT_HEADER)?;
            if let Ok(bytes) = <&[u8; SEGMENT_HEADER]>::try_from(bytes.as_slice()) {
                heads.push((offset, frame::segment_head(bytes)));
            }
        }
        Ok(heads)
    }

    /// Whether the file of a body of its own is there and whole; `None` if it is not there.
    fn blob(&self, number: i64) -> io::Result<Option<bool>> {
        let bytes = match std::fs::read(self.directory.join("blobs").join(number.to_string())) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let whole = bytes.split_first_chunk::<4>();
        Ok(Some(whole.is_some_and(|(sum, rest)| crc32fast::hash(rest) == u32::from_le_bytes(*sum))))
    }
}

/// A message that changes a page.
struct Change {
    kind: u8,
    page: u64,
    place: Place,
}

/// Where a walk through segments ended.
#[derive(Default)]
struct Walked {
    /// Behind the last message; `None` if no segment was read.
    cursor: Option<i64>,
    /// The segment in which it ended, if there is room for more in that.
    base: Option<(i64, u64, Vec<u8>)>,
    /// All of the log before this was read.
    reached: i64,
}

impl Log {
    /// Goes through segments, in the log's order, up to `max`. `tolerant`: a damaged message ends its segment only, and is told to
    /// `damaged`, with its place in the log and that in its segment.
    fn walk(
        &mut self,
        segments: &BTreeMap<i64, u64>,
        max: Option<i64>,
        tolerant: bool,
        damaged: &mut dyn FnMut(i64, usize),
        change: &mut dyn FnMut(Change) -> Sound,
    ) -> Looked<Walked> {
        let size = self.size as i64;
        let mut segments = segments.iter();
        let mut walked = Walked::default();
        loop {
            let within = walked.cursor.unwrap_or(0) % size;
            let room = SEGMENT_HEADER as i64..=size - MESSAGE_HEADER_MAX as i64;
            if !room.contains(&within)
                && let Some((lsn, ..)) = walked.base.take()
            {
                walked.reached = lsn + size;
            }
            let (lsn, offset, bytes) = match walked.base.take() {
                Some(base) => base,
                None => {
                    let Some((lsn, offset)) =
                        segments.next().filter(|(lsn, _)| max.is_none_or(|max| **lsn <= max))
                    else {
                        break;
                    };
                    walked.cursor = Some(lsn + SEGMENT_HEADER as i64);
                    (*lsn, *offset, self.segment(*offset)?)
                }
            };
            let cursor = walked.cursor.unwrap_or(lsn);
            walked.reached = cursor;
            let at = usize::try_from(cursor - lsn).unwrap_or(0);
            if max.is_some_and(|max| cursor > max) {
                walked.base = Some((lsn, offset, bytes));
                break;
            }
            let mut ended = false;
            match frame::message(&bytes, self.size, at, (lsn / size).cast_unsigned()) {
                Message::Whole { kind: CAP, .. } => {
                    walked.reached = lsn + size;
                    continue;
                }
                Message::Whole { kind: CANCELED, len, .. } => walked.cursor = Some(cursor + len as i64),
                Message::Whole { kind: BATCH, body, len, .. } => {
                    let last = body.first_chunk().map_or(0, |last| i64::from_le_bytes(*last));
                    ended = max.is_some_and(|max| last > max);
                    walked.cursor = Some(cursor + if ended { 0 } else { len as i64 });
                }
                Message::Whole { kind, page, body, len } => {
                    let blob = body.first_chunk().filter(|_| frame::is_blob(kind));
                    let blob = blob.map(|number| i64::from_le_bytes(*number));
                    let whole = blob.map_or(Ok(Some(true)), |number| self.blob(number))?;
                    ended = whole == Some(false);
                    if !ended {
                        walked.cursor = Some(cursor + len as i64);
                    }
                    if whole == Some(true) {
                        let place = Place { lsn: cursor, offset: offset + at as u64, blob, len: len as u64 };
                        sound!(change(Change { kind, page, place }));
                    }
                }
                Message::Damaged if tolerant => {
                    damaged(cursor, at);
                    continue;
                }
                Message::Damaged | Message::Cut => ended = true,
            }
            walked.base = Some((lsn, offset, bytes));
            if ended {
                break;
            }
        }
        Ok(Ok(walked))
    }
}

impl Snapshot {
    /// As sled does it.
    fn apply(&mut self, change: Change) -> Sound {
        let Ok(page) = usize::try_from(change.page) else {
            return Err(Damage::Other(format!("a page has the number {}", change.page)));
        };
        let grown = self.pages.len() <= page;
        if grown {
            self.pages.resize(page + 1, Page::Missing);
        }
        let Some(known) = self.pages.get_mut(page) else {
            return Ok(());
        };
        match (change.kind, known) {
            (FREE, known) => *known = Page::Free(Place { len: 0, ..change.place }),
            (LINK | LINK_BLOB, Page::Present { base, additions }) => {
                if additions.last().unwrap_or(base).lsn < change.place.lsn {
                    additions.push(change.place);
                }
            }
            // Its base was written anew, in a later segment.
            (LINK | LINK_BLOB, _) if grown => drop(self.pages.pop()),
            (LINK | LINK_BLOB, _) => {}
            (_, known) => *known = Page::Present { base: change.place, additions: Vec::new() },
        }
        Ok(())
    }
}

/// The snapshot files, the newest last. One that was not finished is none.
fn snapshot_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in directory.read_dir()? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("snap.") && path.extension().is_none_or(|extension| extension != "generating") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether sled's settings are those that it is opened with. It looks at them itself, when a snapshot file is written already; one
/// that is missing it writes.
fn conf_is_sound(directory: &Path, size: usize) -> io::Result<bool> {
    let conf = match std::fs::read(directory.join("conf")) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(true),
        other => other?,
    };
    let expected = format!("segment_size: {size}\nuse_compression: false\nversion: 0.34\n");
    // Its checksum follows, at which sled does not look.
    Ok(conf.split_last_chunk::<4>().is_some_and(|(said, _)| said == expected.as_bytes()))
}

/// The highest position of a segment in the log.
pub(super) fn newest_segment(directory: &Path, size: usize) -> io::Result<i64> {
    let heads = Log::open(directory, size)?.heads()?;
    Ok(heads.into_iter().filter_map(|(_, head)| head).map(|head| head.lsn).max().unwrap_or(0))
}

/// What the file `db` has in a segment, from its beginning on.
pub(super) fn segment_at(directory: &Path, size: usize, offset: u64) -> io::Result<Vec<u8>> {
    Log::open(directory, size)?.segment(offset)
}

/// Whose a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// This crate's, which has synced it up to this position, if it knows that. It is never empty.
    Ours(Option<i64>),
    Foreign,
}

/// Looks at the log in `directory`, whose segments have `size` bytes.
pub(super) fn look(directory: &Path, size: usize, whose: Whose) -> Looked<Found> {
    let mark = if let Whose::Ours(mark) = whose { mark } else { None };
    let files = snapshot_files(directory)?;
    let snapshot = match files.last() {
        None => Some(Snapshot::default()),
        Some(file) => Snapshot::from_bytes(&std::fs::read(file)?),
    };
    let Some(mut snapshot) = snapshot else {
        let file = files.last().map(|file| file.display().to_string()).unwrap_or_default();
        return other(format!("the snapshot file {file} is damaged"));
    };
    if whose != Whose::Foreign && !conf_is_sound(directory, size)? {
        return other("its file conf is damaged, or of another release of sled than 0.34");
    }
    let mut log = match Log::open(directory, size) {
        Err(e) if e.kind() == ErrorKind::NotFound => return other("its file db is missing"),
        other => other?,
    };
    let bytes = size as i64;
    let known = snapshot.stable;
    let min = known.unwrap_or(0) / bytes * bytes;

    let heads = log.heads()?;
    let mut segments = BTreeMap::new();
    let mut stable = min;
    for (offset, head) in &heads {
        if let Some(head) = head.filter(|head| head.lsn >= min) {
            stable = stable.max(head.stable);
            if segments.insert(head.lsn, *offset).is_some() {
                return other(format!("two segments of the log have the position {}", head.lsn));
            }
        }
    }
    let end = sound!(log.end(&segments, stable)?);

    let mut damaged = Vec::new();
    let mut remember = |at: i64, within: usize| damaged.push((at, within));
    let mut apply = |change: Change| {
        if known.is_some_and(|known| change.place.lsn < known) {
            return Ok(());
        }
        if change.place.lsn >= end {
            return Err(Damage::Other(format!(
                "a message at {} is behind the end of the log",
                change.place.lsn
            )));
        }
        snapshot.apply(change)
    };
    let walked = sound!(log.walk(&segments, Some(end), true, &mut remember, &mut apply)?);

    let mut reached = known.unwrap_or(0);
    if let Some(cursor) = walked.cursor {
        let progress = cursor % bytes;
        if progress < SEGMENT_HEADER as i64 && (progress > 0 || walked.base.is_some()) {
            return other(format!("the log ends at {cursor}, in the head of a segment"));
        }
        let (at, active) = if progress + MESSAGE_HEADER_MAX as i64 >= bytes {
            (cursor / bytes * bytes + bytes, None)
        } else {
            (cursor, walked.base.as_ref().map(|(_, offset, _)| *offset))
        };
        if at < known.unwrap_or(0) {
            return other(format!(
                "the log can be read up to {at}, and its snapshot file is of {}",
                known.unwrap_or(0)
            ));
        }
        (snapshot.stable, snapshot.active) = (Some(at), active);
        reached = walked.reached.max(at);
    } else if snapshot.active.is_some() {
        return other("the last segment of the log has lost its head");
    }
    if let Some(mark) = mark {
        if reached < mark {
            return Ok(Err(Damage::Flushed(format!(
                "the log can be read up to {reached}, and was flushed up to {mark}"
            ))));
        }
        for (at, within) in damaged.into_iter().filter(|(at, _)| *at < mark) {
            let Some(offset) = segments.get(&(at / bytes * bytes)) else { continue };
            let segment = log.segment(*offset)?;
            let free = |number| snapshot.is_free(&segment, size, within, number);
            if !newer_message(&segment, size, within, mark / bytes) && !free(at / bytes) {
                return Ok(Err(Damage::Flushed(format!(
                    "the log is damaged at {at}, and was flushed up to {mark}"
                ))));
            }
        }
        for (offset, _) in heads.iter().filter(|(_, head)| head.is_none()) {
            if log.lost_head(*offset, min / bytes, mark / bytes)? {
                return Ok(Err(Damage::Flushed(format!(
                    "the segment at {offset} of the log has lost its head"
                ))));
            }
        }
    }
    if whose != Whose::Foreign && snapshot.pages.is_empty() {
        return other("its file db holds nothing");
    }
    sound!(log.check_pages(&snapshot.pages)?);
    let segment = match snapshot.active {
        Some(offset) => Some((offset, log.segment(offset)?)),
        None => None,
    };
    let advanced = snapshot.stable > known;
    Ok(Ok(Found { snapshot, advanced, files, segment, file_len: log.len }))
}

/// Whether a message of a later segment than `number` begins behind `at`.
fn newer_message(segment: &[u8], size: usize, at: usize, number: i64) -> bool {
    any_message(segment, size, at, &|of| of > number)
}

fn any_message(segment: &[u8], size: usize, at: usize, wanted: &dyn Fn(i64) -> bool) -> bool {
    messages(segment, size, at).any(|(_, number, _)| wanted(number))
}

/// What is whole behind `at`, wherever it begins: its place, the number of its segment, and the page that it changes.
fn messages(segment: &[u8], size: usize, at: usize) -> impl Iterator<Item = (usize, i64, Option<u64>)> {
    (at..segment.len().min(size.saturating_sub(MESSAGE_HEADER_MAX))).filter_map(move |at| {
        segment.get(at + 4).filter(|kind| **kind != 0)?;
        let number = frame::number_of(segment, at)?;
        match frame::parse(segment, size, at) {
            Message::Whole { kind: CANCELED | CAP | BATCH, .. } => Some((at, number.cast_signed(), None)),
            Message::Whole { page, .. } => Some((at, number.cast_signed(), Some(page))),
            Message::Damaged | Message::Cut => None,
        }
    })
}

impl Snapshot {
    /// Whether nothing of any page is in a segment, which is damaged at `within`: what is whole behind that was written anew
    /// since, and so was what is damaged, if it can be told.
    fn is_free(&self, segment: &[u8], size: usize, within: usize, number: i64) -> bool {
        let bytes = size as i64;
        let is_here = |place: &Place| place.lsn / bytes == number;
        let in_use = self.pages.iter().any(|page| match page {
            Page::Missing => false,
            Page::Free(place) => is_here(place),
            Page::Present { base, additions } => is_here(base) || additions.iter().any(is_here),
        });
        let replaced = |at: usize, page: u64| {
            let page = usize::try_from(page).ok().and_then(|page| self.pages.get(page));
            matches!(page, Some(Page::Free(place) | Page::Present { base: place, .. })
                if place.lsn > number * bytes + at as i64)
        };
        // Its header can be believed where the log goes on behind it.
        let goes_on = |end: usize| {
            end + MESSAGE_HEADER_MAX > size
                || matches!(frame::message(segment, size, end, number.cast_unsigned()), Message::Whole { .. })
        };
        let damaged = frame::page_and_end(segment, within, number.cast_unsigned());
        let damaged = damaged.filter(|(_, end)| goes_on(*end));
        !in_use
            && damaged.is_none_or(|(page, _)| replaced(within, page))
            && messages(segment, size, within)
                .filter(|(_, of, _)| *of == number)
                .all(|(at, _, page)| page.is_none_or(|page| replaced(at, page)))
    }
}

impl Log {
    /// The last position of the tail's last message: the log does not reach further.
    fn end(&mut self, segments: &BTreeMap<i64, u64>, stable: i64) -> Looked<i64> {
        let size = self.size as i64;
        let mut expected = (stable / size * size).max(0);
        let (mut tail, mut missing) = (BTreeMap::new(), None);
        for (lsn, offset) in segments.range(expected..) {
            if *lsn != expected {
                missing = Some(expected);
                break;
            }
            tail.insert(*lsn, *offset);
            expected += size;
        }
        let walked = self.walk(&tail, missing, false, &mut |_, _| (), &mut |_| Ok(()))?;
        Ok(walked.map(|walked| walked.cursor.unwrap_or(0) - 1))
    }

    /// Whether a segment without a head has messages of the log between these two.
    fn lost_head(&mut self, offset: u64, first: i64, last: i64) -> io::Result<bool> {
        if self.read(offset, PROBED_BYTES)?.iter().all(|byte| *byte == 0) {
            return Ok(false);
        }
        let segment = self.segment(offset)?;
        Ok(any_message(&segment, self.size, SEGMENT_HEADER, &|of| (first..=last).contains(&of)))
    }

    fn check_pages(&mut self, pages: &[Page]) -> Looked<()> {
        let size = self.size as i64;
        let mut segments = BTreeMap::new();
        for (number, page) in pages.iter().enumerate() {
            let (base, additions) = match page {
                Page::Missing => return other(format!("the page {number} is missing in the log")),
                Page::Free(place) if number < OWN_PAGES => {
                    return other(format!("the page {number} is no more, from {} on", place.lsn));
                }
                Page::Free(place) => (place, &Vec::new()),
                Page::Present { base, additions } => (base, additions),
            };
            for place in [base].into_iter().chain(additions) {
                if place.offset >= self.len {
                    return other(format!("the log is cut off: the page {number} is behind its end"));
                }
                let of = place.lsn / size;
                if *segments.entry(place.offset / self.size as u64).or_insert(of) != of {
                    return other(format!(
                        "the page {number} is in a segment of the log that was written over"
                    ));
                }
                if number < OWN_PAGES && !self.is_whole(place)? {
                    return other(format!(
                        "the page {number} is damaged, at {} of the log's file",
                        place.offset
                    ));
                }
            }
        }
        Ok(Ok(()))
    }

    fn is_whole(&mut self, place: &Place) -> io::Result<bool> {
        let size = self.size as u64;
        let at = usize::try_from(place.offset % size).unwrap_or(0);
        let segment = self.segment(place.offset / size * size)?;
        let of = (place.lsn / self.size as i64).cast_unsigned();
        let fits = at >= SEGMENT_HEADER && at + MESSAGE_HEADER_MAX <= self.size;
        Ok(fits && matches!(frame::message(&segment, self.size, at, of), Message::Whole { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sled::lifetime::{self, Ending};

    const SIZE: usize = 16 << 10;

    /// Numbers that are the same in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }
    }

    fn config(directory: &Path) -> sled::Config {
        sled::Config::new().path(directory).segment_size(SIZE).cache_capacity(1 << 20).flush_every_ms(None)
    }

    fn copy(from: &Path, to: &Path) {
        let _of_an_earlier_one = std::fs::remove_dir_all(to);
        std::fs::create_dir_all(to.join("blobs")).unwrap();
        for name in crate::engine::aside::files_below(from).unwrap() {
            // sled removes snapshots and blobs as it goes.
            let _copied_or_gone = std::fs::copy(from.join(&name), to.join(&name));
        }
    }

    /// What sled makes of `image`: its snapshot file.
    fn by_sled(image: &Path, work: &Path) -> Option<Vec<u8>> {
        copy(image, work);
        let db = lifetime::open(&config(work), "work").ok()?;
        let newest = snapshot_files(work).unwrap().pop();
        let bytes = newest.map(|file| std::fs::read(file).unwrap());
        lifetime::close(db, &Ending::Plain, work);
        bytes
    }

    /// Any part of what is written over a free segment may be there after a loss of power, and no message of it as a whole.
    #[test]
    fn a_free_segment_may_be_half_written_over_and_one_in_use_may_not() {
        let root = std::env::temp_dir().join(format!("exuvia-free-{}", std::process::id()));
        let (live, image) = (root.join("live"), root.join("image"));
        let _of_an_earlier_process = std::fs::remove_dir_all(&root);
        let mut random = Random(7);
        let db = config(&live).open().unwrap();
        for step in 0..3000 {
            // Some are written once, so that their pages stay where they are.
            let key = if step % 10 == 0 { 1000 + step } else { random.below(20) }.to_be_bytes();
            db.insert(key, vec![step as u8; 100 + random.below(50) as usize]).unwrap();
        }
        db.flush().unwrap();
        let mark = db.context.pagecache.log.stable_offset() + 1;
        copy(&live, &image);
        let whole = look(&image, SIZE, Whose::Ours(Some(mark))).unwrap().unwrap();
        let log = std::fs::read(image.join("db")).unwrap();
        let over = |at: usize, len: usize| {
            let mut bytes = log.clone();
            bytes[at..at + len].fill(0xa5);
            std::fs::write(image.join("db"), bytes).unwrap();
            look(&image, SIZE, Whose::Ours(Some(mark))).unwrap()
        };
        let places = whole.snapshot.pages.iter().skip(OWN_PAGES).flat_map(|page| match page {
            Page::Present { base, additions } => [base].into_iter().chain(additions).collect(),
            Page::Missing | Page::Free(_) => Vec::new(),
        });
        let places: Vec<&Place> = places.collect();
        let (mut free, mut in_use) = (0, 0);
        for place in places.iter().filter(|place| place.lsn + (2 * SIZE as i64) < mark) {
            let found = over((place.offset + place.len / 2) as usize, 8);
            assert!(matches!(found, Err(Damage::Flushed(_))), "{place:?}: {found:?}");
            in_use += 1;
        }
        let heads = Log::open(&image, SIZE).unwrap().heads().unwrap();
        // sled writes over a segment once a head calls the log stable behind it. How far that lags behind the flush is up to the
        // threads that write.
        let stable = heads.iter().filter_map(|(_, head)| *head).map(|head| head.stable).max().unwrap();
        for (offset, head) in heads {
            let is_old = head.is_some_and(|head| head.lsn + (2 * SIZE as i64) <= stable);
            let segment = offset..offset + SIZE as u64;
            if is_old && !whole.snapshot.pages.iter().any(|page| matches!(page, Page::Free(place) | Page::Present { base: place, .. } if segment.contains(&place.offset)))
                && !places.iter().any(|place| segment.contains(&place.offset))
            {
                for from in [512, 4096, 8192 + 512] {
                    let found = over(offset as usize + from, 4096);
                    assert_eq!(found.unwrap().snapshot, whole.snapshot, "{head:?} at {offset}, {from}");
                    free += 1;
                }
            }
        }
        drop(db);
        println!("{free} in free segments, {in_use} in others");
        assert!(free > 0 && in_use > 0);
        std::fs::remove_dir_all(&root).unwrap();
    }

    /// Logs that were closed, killed, torn and damaged: what is found here is what sled finds, to the byte.
    #[test]
    fn what_is_found_is_what_sled_recovers() {
        let root = std::env::temp_dir().join(format!("exuvia-recovery-{}", std::process::id()));
        let (live, image, work) = (root.join("live"), root.join("image"), root.join("work"));
        let (mut same, mut refused, mut stricter, mut failed) = (0, 0, 0, 0);
        let long = std::env::var("EXUVIA_OPEN_READS").is_ok_and(|form| form == "all");
        for seed in 0..if long { 40 } else { 3 } {
            let _of_the_one_before = std::fs::remove_dir_all(&root);
            let mut random = Random(seed);
            for session in 0..3 {
                let db = lifetime::open(&config(&live), "live").unwrap();
                let trees = [db.open_tree("a").unwrap(), db.open_tree("b").unwrap()];
                for step in 0..600 {
                    let tree = &trees[random.below(2) as usize];
                    let key = random.below(200).to_be_bytes();
                    match random.below(12) {
                        0 => drop(tree.remove(key).unwrap()),
                        // A body in a file of its own.
                        1 if seed % 3 == 0 => drop(tree.insert(key, vec![7; SIZE / 3]).unwrap()),
                        2 if seed % 4 == 1 => {
                            let mut batch = sled::Batch::default();
                            batch.insert(&key, &key);
                            batch.insert(b"batch", &key);
                            tree.apply_batch(batch).unwrap();
                        }
                        _ => drop(tree.insert(key, vec![session; random.below(300) as usize]).unwrap()),
                    }
                    if random.below(40) == 0 {
                        db.flush().unwrap();
                    }
                    if step % 100 != 99 {
                        continue;
                    }
                    copy(&live, &image);
                    for damage in 0..4 {
                        let log = image.join("db");
                        let mut bytes = std::fs::read(&log).unwrap();
                        let tail = (bytes.len() as u64).min(4 * SIZE as u64);
                        let at = bytes.len() - 1 - random.below(tail) as usize;
                        match damage {
                            0 => {}
                            1 => bytes.truncate(at),
                            2 => {
                                let end = (at + random.below(3000) as usize).min(bytes.len());
                                bytes[at..end].fill(0);
                            }
                            _ => bytes[at] ^= 0x10,
                        }
                        std::fs::write(&log, &bytes).unwrap();
                        let found = look(&image, SIZE, Whose::Foreign).unwrap();
                        match (by_sled(&image, &work), found) {
                            (Some(sled), Ok(found)) => {
                                let ours = found.snapshot.to_bytes().unwrap();
                                let parsed = Snapshot::from_bytes(&sled).unwrap();
                                if found.advanced {
                                    assert_eq!(
                                        parsed, found.snapshot,
                                        "seed {seed}, session {session}, step {step}, damage {damage}"
                                    );
                                    assert!(ours == sled);
                                } else {
                                    assert_eq!(parsed.pages, found.snapshot.pages);
                                }
                                same += 1;
                            }
                            // What sled does not look at.
                            (Some(_), Err(Damage::Other(what) | Damage::Flushed(what)))
                                if damage > 0
                                    && ["cut off", "lost its head"]
                                        .iter()
                                        .any(|known| what.contains(known)) =>
                            {
                                stricter += 1;
                            }
                            (Some(_), Err(found)) => {
                                panic!(
                                    "seed {seed}, session {session}, damage {damage}: sled opens it, and here {found:?}"
                                )
                            }
                            (None, Err(_)) => refused += 1,
                            (None, Ok(_)) => failed += 1,
                        }
                        copy(&live, &image);
                    }
                }
                drop(trees);
                lifetime::close(db, &Ending::Plain, &live);
            }
        }
        println!("{same} the same, {refused} refused by both, {stricter} here only, {failed} by sled only");
        assert!(same > 100);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
