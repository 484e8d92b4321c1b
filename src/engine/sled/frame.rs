//! What lies in sled's files, byte by byte, so that it can be read without sled.
//!
//! Numbers are little endian; a *varint* is sled's own: up to 240 one byte, up to 2287 two (241 to 248), up to 67823 three (249),
//! else a byte that says how many follow.
//!
//! - The log, `db`, is a row of segments of equal size. A segment begins with a header of 20 bytes: CRC-32 of the rest,
//!   inverted (4); its number in the log (8) and up to where the log was stable then (8), each with all bits but the
//!   first inverted.
//! - Then messages: CRC-32 of body and rest of the header, inverted (4); kind (1); length of the body, number of the segment,
//!   page (varints); body. A message never begins in the last 32 bytes of a segment.
//! - A snapshot, `snap.<position>`, is the table of pages at a position of the log: position plus one (8), active segment
//!   plus one (varint), pages; then the length of all that (8) and its CRC-32 (4). A page is 0, position (8) and place of its
//!   end; or one more than the number of its additions, and for its base and each addition position (8), place, length
//!   (varint). A place is 0 and an offset (varint), or 1, an offset, and the number of a file in `blobs` (8).

/// Bytes before the first message of a segment.
pub(super) const SEGMENT_HEADER: usize = 20;
/// A message needs so much room, and none begins where there is less.
pub(super) const MESSAGE_HEADER_MAX: usize = 32;
/// What sled reads of a message at first; it takes what is behind the end of the file for zeroes.
const PROBE: usize = 128;

const KINDS: u8 = 12;
pub(super) const CANCELED: u8 = 1;
pub(super) const CAP: u8 = 2;
pub(super) const BATCH: u8 = 3;
pub(super) const FREE: u8 = 4;
pub(super) const LINK: u8 = 10;
pub(super) const LINK_BLOB: u8 = 11;

/// Whether the body of a message is in a file of its own.
pub(super) fn is_blob(kind: u8) -> bool {
    matches!(kind, 7 | 9 | LINK_BLOB)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, more) = rest.split_first_chunk()?;
    *rest = more;
    Some(*taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let [first] = take(rest)?;
    Some(match first {
        0..=240 => u64::from(first),
        241..=248 => 240 + 256 * u64::from(first - 241) + u64::from(take::<1>(rest)?[0]),
        249 => 2288 + u64::from(u16::from_be_bytes(take(rest)?)),
        _ => {
            let len = usize::from(first) - 247;
            let (bytes, more) = rest.split_at_checked(len)?;
            *rest = more;
            let mut all = [0; 8];
            all.get_mut(..len)?.copy_from_slice(bytes);
            u64::from_le_bytes(all)
        }
    })
}

fn put_varint(to: &mut Vec<u8>, number: u64) {
    match number {
        0..=240 => to.push(number.to_le_bytes()[0]),
        241..=2287 => {
            to.push(241 + ((number - 240) / 256).to_le_bytes()[0]);
            to.push((number - 240).to_le_bytes()[0]);
        }
        2288..=67823 => {
            let [.., high, low] = (number - 2288).to_be_bytes();
            to.extend([249, high, low]);
        }
        _ => {
            let bytes = number.to_le_bytes();
            let len = 3.max(8 - number.leading_zeros() / 8);
            to.push(247 + len.to_le_bytes()[0]);
            to.extend(bytes.iter().take(len as usize));
        }
    }
}

/// The head of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentHead {
    /// Where it begins in the log.
    pub(super) lsn: i64,
    /// Up to where the log was stable when it was begun.
    pub(super) stable: i64,
}

/// `None` if its checksum is wrong: a segment that was never written, was zeroed, or is damaged.
pub(super) fn segment_head(bytes: &[u8; SEGMENT_HEADER]) -> Option<SegmentHead> {
    let mut rest = bytes.as_slice();
    let sum = u32::from_le_bytes(take(&mut rest)?);
    if crc32fast::hash(rest) != !sum {
        return None;
    }
    let lsn = i64::from_le_bytes(take(&mut rest)?) ^ i64::MAX;
    let stable = i64::from_le_bytes(take(&mut rest)?) ^ i64::MAX;
    Some(SegmentHead { lsn, stable })
}

/// What is at a place where a message may begin.
#[derive(Debug)]
pub(super) enum Message<'b> {
    Whole {
        kind: u8,
        page: u64,
        body: std::borrow::Cow<'b, [u8]>,
        len: usize,
    },
    Damaged,
    /// It goes on behind the end of the file.
    Cut,
}

/// The message at `at` of a segment, of which `segment` are the bytes that the file has, up to `size`; `number` is the
/// segment's. `at` leaves room for a message's header.
pub(super) fn message(segment: &[u8], size: usize, at: usize, number: u64) -> Message<'_> {
    match parse(segment, size, at) {
        Message::Whole { kind, page, body, len } => {
            if number_of(segment, at) == Some(number) {
                Message::Whole { kind, page, body, len }
            } else {
                Message::Damaged
            }
        }
        other => other,
    }
}

fn probe(segment: &[u8], at: usize) -> Option<[u8; PROBE]> {
    let there = segment.get(at..)?;
    let mut probe = [0; PROBE];
    for (to, from) in probe.iter_mut().zip(there) {
        *to = *from;
    }
    Some(probe)
}

/// The number of its segment that a message's header has.
pub(super) fn number_of(segment: &[u8], at: usize) -> Option<u64> {
    let probe = probe(segment, at)?;
    let mut rest = probe.get(5..)?;
    let _length = varint(&mut rest)?;
    varint(&mut rest)
}

/// The page that a message changes, and where it ends, by its header, if that says that it is of this segment.
pub(super) fn page_and_end(segment: &[u8], at: usize, number: u64) -> Option<(u64, usize)> {
    let probe = probe(segment, at)?;
    let mut rest = probe.get(4..)?;
    let [kind] = take(&mut rest)?;
    let (len, of, page) = (varint(&mut rest)?, varint(&mut rest)?, varint(&mut rest)?);
    let end = usize::try_from(len).ok()?.checked_add(at + PROBE - rest.len())?;
    (of == number && kind > BATCH && kind < KINDS).then_some((page, end))
}

/// [`message`], of whichever segment.
pub(super) fn parse(segment: &[u8], size: usize, at: usize) -> Message<'_> {
    let Some(probe) = probe(segment, at) else {
        return Message::Cut;
    };
    let mut rest = probe.as_slice();
    let head = (|| {
        let sum = u32::from_le_bytes(take(&mut rest)?);
        let [kind] = take(&mut rest)?;
        let (len, _number) = (varint(&mut rest)?, varint(&mut rest)?);
        Some((sum, kind, len, varint(&mut rest)?))
    })();
    let Some((sum, kind, len, page)) = head else {
        return Message::Damaged;
    };
    let head_len = PROBE - rest.len();
    let room = size.saturating_sub(at + head_len);
    let Some(len) = usize::try_from(len).ok().filter(|len| *len <= room) else {
        return Message::Damaged;
    };
    if kind == 0 || kind >= KINDS {
        return Message::Damaged;
    }
    let begin = at + head_len;
    let body = match segment.get(begin..begin + len) {
        Some(body) => std::borrow::Cow::Borrowed(body),
        None => match rest.get(..len) {
            Some(body) => std::borrow::Cow::Owned(body.to_vec()),
            None => return Message::Cut,
        },
    };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&body);
    hasher.update(probe.get(4..head_len).unwrap_or_default());
    if hasher.finalize() != !sum {
        return Message::Damaged;
    }
    Message::Whole { kind, page, body, len: head_len + len }
}

/// Where a page, or a part of it, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lsn: i64,
    pub(super) offset: u64,
    /// The number of its file in `blobs`.
    pub(super) blob: Option<i64>,
    /// Its bytes in the log.
    pub(super) len: u64,
}

/// A page of sled's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// There is none of this number.
    Missing,
    Free(Place),
    Present {
        base: Place,
        additions: Vec<Place>,
    },
}

/// All pages at one position of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Where the log goes on.
    pub(super) stable: Option<i64>,
    /// The segment in which it does, unless it goes on in a new one.
    pub(super) active: Option<u64>,
    pub(super) pages: Vec<Page>,
}

impl Snapshot {
    /// `None` if the file is damaged.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (bytes, sum) = bytes.split_last_chunk::<4>()?;
        let (mut rest, len) = bytes.split_last_chunk::<8>()?;
        if rest.is_empty()
            || crc32fast::hash(rest) != u32::from_le_bytes(*sum)
            || u64::from_le_bytes(*len) != rest.len() as u64
        {
            return None;
        }
        let stable = i64::from_le_bytes(take(&mut rest)?);
        let active = varint(&mut rest)?.checked_sub(1);
        let mut pages = Vec::new();
        while let Some(count) = rest.split_off_first() {
            let mut place = |sized: bool| {
                let lsn = i64::from_le_bytes(take(&mut rest)?);
                let [kind] = take(&mut rest)?;
                let offset = varint(&mut rest)?;
                let blob = match kind {
                    0 => None,
                    1 => Some(i64::from_le_bytes(take(&mut rest)?)),
                    _ => return None,
                };
                let len = if sized { varint(&mut rest)? } else { 0 };
                Some(Place { lsn, offset, blob, len })
            };
            pages.push(match *count {
                0 => Page::Free(place(false)?),
                count => {
                    let base = place(true)?;
                    let additions = (1..count).map(|_| place(true)).collect::<Option<_>>()?;
                    Page::Present { base, additions }
                }
            });
        }
        let stable = if stable < 0 { Some(stable) } else { stable.checked_sub(1).filter(|at| *at >= 0) };
        Some(Self { stable, active, pages })
    }

    /// The file's content. `None` if sled could not write it either: a page is missing, or is in too many parts.
    pub(super) fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = self.stable.map_or(0, |at| at + 1).to_le_bytes().to_vec();
        put_varint(&mut bytes, self.active.map_or(0, |at| at + 1));
        let put = |bytes: &mut Vec<u8>, place: &Place, sized: bool| {
            bytes.extend(place.lsn.to_le_bytes());
            bytes.push(u8::from(place.blob.is_some()));
            put_varint(bytes, place.offset);
            bytes.extend(place.blob.map(i64::to_le_bytes).into_iter().flatten());
            if sized {
                put_varint(bytes, place.len);
            }
        };
        for page in &self.pages {
            match page {
                Page::Missing => return None,
                Page::Free(place) => {
                    bytes.push(0);
                    put(&mut bytes, place, false);
                }
                Page::Present { base, additions } => {
                    bytes.push(u8::try_from(additions.len() + 1).ok()?);
                    [base].into_iter().chain(additions).for_each(|place| put(&mut bytes, place, true));
                }
            }
        }
        let sum = crc32fast::hash(&bytes);
        bytes.extend((bytes.len() as u64).to_le_bytes());
        bytes.extend(sum.to_le_bytes());
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_comes_back_in_the_length_that_sled_gives_it() {
        let lengths =
            [(0, 1), (240, 1), (241, 2), (2287, 2), (2288, 3), (67823, 3), (67824, 4), (0xff_ffff, 4)];
        let longer = [(0x100_0000, 5), (0xffff_ffff, 5), (0x1_0000_0000, 6), (1 << 48, 8), (u64::MAX, 9)];
        for (number, len) in lengths.into_iter().chain(longer) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            assert_eq!(bytes.len(), len, "{number}");
            let mut rest = bytes.as_slice();
            assert_eq!(varint(&mut rest), Some(number));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_snapshot_comes_back_and_no_damaged_byte_of_it_does() {
        let place = |lsn: i64, blob| Place { lsn, offset: 70_000 + lsn as u64, blob, len: 300 };
        let end = Place { len: 0, ..place(9, None) };
        let page = Page::Present { base: place(5, Some(5)), additions: vec![place(7, None), place(8, None)] };
        let pages = vec![page, Page::Free(end)];
        let snapshot = Snapshot { stable: Some(4_000_000), active: Some(0), pages };
        let bytes = snapshot.to_bytes().unwrap();
        assert_eq!(Snapshot::from_bytes(&bytes), Some(snapshot));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Snapshot::from_bytes(&damaged), None, "byte {at}");
        }
    }
}
