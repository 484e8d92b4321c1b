//! The record envelope: the bytes of every value in a record tree. Pure functions on slices.
//!
//! ```text
//! byte 0      format (high nibble, = 1) and flags (low nibble)
//! varint      version of the main form
//! [varint version, varint length of the companion form]      if COMPANION
//! bytes       main form (codec output; empty for a tombstone and for a failed derivation)
//! [bytes]     companion form
//! 4 bytes     CRC-32C, little endian, over the key and everything before it
//! ```
//!
//! The key is in the checksum, so a value that is found under the wrong key is damage, not a record. Nothing
//! here allocates by a length that was read: forms are ranges of the bytes at hand.

use crate::engine::Value;

/// The format that this code writes, and the only one that it reads.
pub(crate) const FORMAT: u8 = 1;

const CRC_BYTES: usize = 4;
/// Most that an envelope adds to its forms: format, two varint versions, one varint length, checksum.
pub(crate) const OVERHEAD_MAX: usize = 1 + 5 + 5 + 5 + CRC_BYTES;

/// The low nibble of the first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(u8);

impl Flags {
    pub(crate) const NONE: Flags = Flags(0);
    /// The record was removed.
    pub(crate) const TOMBSTONE: Flags = Flags(1);
    const COMPANION: Flags = Flags(2);
    /// Nothing but the upcast of the companion, or of the base's record.
    pub(crate) const DERIVED: Flags = Flags(4);
    /// The upcast failed; the reason is in the quarantine.
    pub(crate) const FAILED: Flags = Flags(8);

    pub(crate) const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    pub(crate) const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Why bytes are no envelope. The text goes into the error for that key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) &'static str);

/// A parsed envelope: where its forms are in the bytes. Small, as one is made and moved for every record that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) flags: Flags,
    /// Version of the main form (of its writer, for a tombstone).
    pub(crate) version: u32,
    /// Version of the companion, if the flags say that there is one.
    companion: u32,
    /// Where the main form begins.
    main: u32,
    /// Where the main form ends, and the companion begins.
    split: u32,
    /// Where the forms end.
    end: u32,
}

impl Header {
    /// Whether it means, in a base or in a settled table, that there is no record.
    #[inline]
    pub(crate) fn is_absence(&self) -> bool {
        self.flags.has(Flags::TOMBSTONE) || self.flags.has(Flags::DERIVED.with(Flags::FAILED))
    }

    /// The main form, in the bytes that this header was parsed from.
    #[inline]
    pub(crate) fn main<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.main as usize..self.split as usize).unwrap_or_default()
    }
}

/// A stored value together with its parsed header. Owns the engine's buffer; copies nothing.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    value: Value,
    header: Header,
}

impl Entry {
    #[inline]
    pub(crate) fn parse(key: &[u8], value: Value) -> Result<Entry, Damage> {
        let header = parse(key, &value)?;
        Ok(Entry { value, header })
    }

    pub(crate) fn flags(&self) -> Flags {
        self.header.flags
    }

    #[inline]
    pub(crate) fn version(&self) -> u32 {
        self.header.version
    }

    #[inline]
    pub(crate) fn is_tombstone(&self) -> bool {
        self.header.flags.has(Flags::TOMBSTONE)
    }

    /// As an entry of a base or of a settled table: see [`Header::is_absence`].
    #[inline]
    pub(crate) fn is_absence(&self) -> bool {
        self.header.is_absence()
    }

    #[inline]
    pub(crate) fn is_derived(&self) -> bool {
        self.header.flags.has(Flags::DERIVED)
    }

    #[inline]
    pub(crate) fn is_failed(&self) -> bool {
        self.header.flags.has(Flags::FAILED)
    }

    /// A marker of a failed upcast of the base's record: it has no form of its own.
    #[inline]
    pub(crate) fn is_failed_marker(&self) -> bool {
        self.is_failed() && self.is_derived()
    }

    #[inline]
    pub(crate) fn main(&self) -> &[u8] {
        self.header.main(&self.value)
    }

    #[inline]
    pub(crate) fn companion(&self) -> Option<(u32, &[u8])> {
        let Header { flags, companion, split, end, .. } = self.header;
        let bytes = || self.value.get(split as usize..end as usize).unwrap_or_default();
        flags.has(Flags::COMPANION).then(|| (companion, bytes()))
    }

    /// The whole envelope, for compare-and-set.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.value
    }
}

#[inline]
pub(crate) fn parse(key: &[u8], bytes: &[u8]) -> Result<Header, Damage> {
    let Some(body_len) = bytes.len().checked_sub(CRC_BYTES) else {
        return Err(Damage("shorter than an envelope"));
    };
    let (body, stored_crc) = bytes.split_at(body_len);
    let [first, rest @ ..] = body else {
        return Err(Damage("shorter than an envelope"));
    };
    if first >> 4 != FORMAT {
        return Err(Damage("unknown envelope format; it may be of a newer release"));
    }
    if checksum(key, body).to_le_bytes() != *stored_crc {
        return Err(Damage("checksum mismatch"));
    }
    let flags = Flags(first & 0x0f);
    let mut at = body_len - rest.len();
    let version = read_varint(body, &mut at)?;
    let (mut companion, mut companion_len) = (0, 0);
    if flags.has(Flags::COMPANION) {
        companion = read_varint(body, &mut at)?;
        companion_len = read_varint(body, &mut at)? as usize;
    }
    let forms = body_len - at;
    let Some(main_len) = forms.checked_sub(companion_len) else {
        return Err(Damage("companion longer than the value"));
    };
    let hollow = flags.has(Flags::TOMBSTONE) || flags.has(Flags::FAILED.with(Flags::DERIVED));
    if hollow && forms != 0 {
        return Err(Damage("a tombstone or failed derivation that carries a form"));
    }
    if flags.has(Flags::TOMBSTONE) && flags != Flags::TOMBSTONE {
        return Err(Damage("a tombstone with other flags"));
    }
    let place = |at: usize| u32::try_from(at).map_err(|_| Damage("longer than 4 GiB"));
    let (main, split, end) = (place(at)?, place(at + main_len)?, place(body_len)?);
    Ok(Header { flags, version, companion, main, split, end })
}

/// CRC-32C of the key and the body. A copy of both to one aligned place takes a tenth fewer instructions, and half as
/// much time again.
#[inline]
fn checksum(key: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), body)
}

#[inline]
fn read_varint(bytes: &[u8], at: &mut usize) -> Result<u32, Damage> {
    let mut value: u32 = 0;
    for shift in (0..35).step_by(7) {
        let Some(&byte) = bytes.get(*at) else {
            return Err(Damage("ends inside its header"));
        };
        *at += 1;
        let low = u32::from(byte & 0x7f);
        let part = low.checked_shl(shift).filter(|p| p >> shift == low);
        let Some(part) = part else {
            return Err(Damage("a number in its header is too large"));
        };
        value |= part;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Damage("a number in its header is too large"))
}

fn write_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Starts an envelope without a companion; the main form is appended by the caller, then [`finish`].
#[inline]
pub(crate) fn start(out: &mut Vec<u8>, flags: Flags, version: u32) {
    out.clear();
    out.push(FORMAT << 4 | flags.0);
    write_varint(out, version);
}

/// Starts an envelope with a companion; the main form and then the companion's bytes are appended by the
/// caller, then [`finish`].
pub(crate) fn start_with_companion(
    out: &mut Vec<u8>,
    flags: Flags,
    version: u32,
    companion: u32,
    companion_len: usize,
) {
    start(out, flags.with(Flags::COMPANION), version);
    write_varint(out, companion);
    // A form is limited far below 4 GiB before it comes here.
    write_varint(out, u32::try_from(companion_len).unwrap_or(u32::MAX));
}

/// Appends the checksum.
#[inline]
pub(crate) fn finish(key: &[u8], out: &mut Vec<u8>) {
    let crc = checksum(key, out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// A whole envelope from forms at hand.
pub(crate) fn seal(
    key: &[u8],
    flags: Flags,
    version: u32,
    main: &[u8],
    companion: Option<(u32, &[u8])>,
) -> Vec<u8> {
    let companion_len = companion.map_or(0, |(_, bytes)| bytes.len());
    let mut out = Vec::with_capacity(OVERHEAD_MAX + main.len() + companion_len);
    match companion {
        None => start(&mut out, flags, version),
        Some((v, bytes)) => start_with_companion(&mut out, flags, version, v, bytes.len()),
    }
    out.extend_from_slice(main);
    if let Some((_, bytes)) = companion {
        out.extend_from_slice(bytes);
    }
    finish(key, &mut out);
    out
}

/// The envelope of a removed record.
pub(crate) fn tombstone(key: &[u8], version: u32) -> Vec<u8> {
    seal(key, Flags::TOMBSTONE, version, &[], None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_of_every_kind() {
        type Case = (Flags, u32, &'static [u8], Option<(u32, &'static [u8])>);
        let cases: [Case; 6] = [
            (Flags::NONE, 1, b"main", None),
            (Flags::NONE, 300, b"main", Some((299, b"companion"))),
            (Flags::DERIVED, 2, b"", Some((1, b""))),
            (Flags::TOMBSTONE, 7, b"", None),
            (Flags::DERIVED.with(Flags::FAILED), 2, b"", None),
            (Flags::FAILED, 1, b"old", Some((2, b"new"))),
        ];
        for (flags, version, main, companion) in cases {
            let bytes = seal(b"k", flags, version, main, companion);
            let entry = Entry::parse(b"k", Value::from(bytes.as_slice())).unwrap();
            assert_eq!((entry.version(), entry.main(), entry.companion()), (version, main, companion));
            assert!(entry.flags().has(flags));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_damage() {
        let bytes = seal(b"key", Flags::NONE, 2, b"main form", Some((1, b"old form")));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(parse(b"key", &damaged).is_err(), "byte {at} bit {bit}");
            }
            assert!(parse(b"key", &bytes[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(parse(b"kez", &bytes), Err(Damage("checksum mismatch")), "the wrong key");
    }

    #[test]
    fn the_checksum_is_that_of_the_key_and_then_the_body_at_every_length() {
        let bytes: Vec<u8> = (0..512).map(|n| (n * 7 + n / 256) as u8).collect();
        for key in [0, 1, 7, 8, 9, 40, 255, 256, 257] {
            for body in [0, 1, 5, 8, 100, 216, 255, 256] {
                let whole = [&bytes[..key], &bytes[..body]].concat();
                // By the definition of CRC-32C, bit by bit: polynomial 0x1EDC6F41, reflected.
                let slow = whole.iter().fold(!0_u32, |crc, byte| {
                    (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1)))
                });
                assert_eq!(checksum(&bytes[..key], &bytes[..body]), !slow, "key {key}, body {body}");
            }
        }
    }

    #[test]
    fn hostile_lengths_with_a_right_checksum_are_damage() {
        // A companion length far beyond the value, and varints that never end.
        for header in
            [&[0x12, 2, 1, 0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff][..]]
        {
            let mut bytes = header.to_vec();
            finish(b"k", &mut bytes);
            assert!(parse(b"k", &bytes).is_err());
        }
    }

    fn sealed(body: &[u8]) -> Vec<u8> {
        let mut bytes = body.to_vec();
        finish(b"k", &mut bytes);
        bytes
    }

    /// Whole, by their checksum, and no envelope that anybody writes.
    #[test]
    fn what_no_writer_makes_is_damage_that_says_so() {
        let format = "unknown envelope format; it may be of a newer release";
        let hollow = "a tombstone or failed derivation that carries a form";
        let cases: [(&[u8], &str); 12] = [
            (b"", "shorter than an envelope"),
            (&[0x20, 1], format),
            (&[0x00, 1], format),
            (&[0x10], "ends inside its header"),
            (&[0x10, 0x80], "ends inside its header"),
            (&[0x12, 2, 1], "ends inside its header"),
            (&[0x12, 2, 1, 4, b'a', b'b', b'c'], "companion longer than the value"),
            (&[0x10, 0xff, 0xff, 0xff, 0xff, 0x1f], "a number in its header is too large"),
            (&[0x11, 1, b'a'], hollow),
            (&[0x1c, 1, b'a'], hollow),
            (&[0x15, 1], "a tombstone with other flags"),
            (&[0x13, 1, 1, 0], "a tombstone with other flags"),
        ];
        for (body, reason) in cases {
            assert_eq!(parse(b"k", &sealed(body)), Err(Damage(reason)), "{body:x?}");
        }
    }

    #[test]
    fn versions_of_every_length_come_back() {
        for version in [0, 1, 127, 128, 129, 300, 16_383, 16_384, 2_097_152, 1 << 28, u32::MAX - 1, u32::MAX]
        {
            let bytes = seal(b"k", Flags::NONE, version, b"main", Some((version, b"old")));
            let entry = Entry::parse(b"k", Value::from(bytes.as_slice())).unwrap();
            assert_eq!((entry.version(), entry.main()), (version, &b"main"[..]));
            assert_eq!(entry.companion(), Some((version, &b"old"[..])));
            assert_eq!(entry.bytes(), bytes);
        }
        // All of the forms is the companion.
        let bytes = sealed(&[0x12, 2, 1, 3, b'o', b'l', b'd']);
        let entry = Entry::parse(b"k", Value::from(bytes.as_slice())).unwrap();
        assert_eq!((entry.main(), entry.companion()), (&b""[..], Some((1, &b"old"[..]))));
        // The longest number, and one that is longer than it needs to be.
        assert_eq!(parse(b"k", &sealed(&[0x10, 0xff, 0xff, 0xff, 0xff, 0x0f])).unwrap().version, u32::MAX);
        assert_eq!(parse(b"k", &sealed(&[0x10, 0x81, 0x00])).unwrap().version, 1);
    }

    #[test]
    fn the_longest_envelope_adds_as_much_as_is_said() {
        let mut bytes = Vec::new();
        start_with_companion(&mut bytes, Flags::NONE, u32::MAX, u32::MAX, u32::MAX as usize);
        finish(b"k", &mut bytes);
        assert_eq!(bytes.len(), OVERHEAD_MAX);
    }

    #[test]
    fn flags_say_what_an_entry_is() {
        let marker = Flags::DERIVED.with(Flags::FAILED);
        // (flags, tombstone, derived, failed, marker, absence)
        let rows = [
            (Flags::NONE, [false, false, false, false, false]),
            (Flags::TOMBSTONE, [true, false, false, false, true]),
            (Flags::DERIVED, [false, true, false, false, false]),
            (Flags::FAILED, [false, false, true, false, false]),
            (marker, [false, true, true, true, true]),
        ];
        for (flags, is) in rows {
            let entry = Entry::parse(b"k", Value::from(seal(b"k", flags, 1, b"", None).as_slice())).unwrap();
            let found = [
                entry.is_tombstone(),
                entry.is_derived(),
                entry.is_failed(),
                entry.is_failed_marker(),
                entry.is_absence(),
            ];
            assert_eq!(found, is, "{flags:?}");
            assert_eq!((entry.flags(), entry.companion()), (flags, None));
        }
        assert_eq!(marker.with(Flags::FAILED), marker, "what is set stays set");
        assert_eq!(tombstone(b"k", 7), seal(b"k", Flags::TOMBSTONE, 7, b"", None));
    }
}
