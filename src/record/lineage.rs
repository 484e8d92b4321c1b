//! The chain of casts, typed for handles and erased to plain function pointers for everything below the table.
//!
//! Typed casts decode once and upcast in memory. Erased casts go from bytes to bytes and serve the backfill,
//! which knows no Rust types; there is one [`Casts`] for each version that the code knows.

use crate::caught::caught;
use crate::error::{Cast, CastError};
use crate::record::shape::{self, Examined};
use crate::record::version::Version;

/// The user's code (or a codec) could not bring a record from one version to another.
#[derive(Debug, Clone)]
pub(crate) struct CastFailure {
    pub(crate) kind: FailureKind,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) source: CastError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Cast(Cast),
    Codec,
    /// The lineage has no type for this version.
    Unknown,
}

impl CastFailure {
    fn new(kind: FailureKind, from: u32, to: u32, source: CastError) -> Self {
        Self { kind, from, to, source }
    }
}

type CastResult<T> = Result<T, CastFailure>;

/// Stored bytes and the version that they are written in.
pub(crate) type Stored<'a> = (u32, &'a [u8]);

/// `V::VERSION` follows its predecessor. Evaluated at compile time for every type of a chain.
pub(crate) const fn assert_chain<V: Version>() {
    let (own, previous) = (V::VERSION, <V::Previous as Version>::VERSION);
    assert!(own > 0, "Version::VERSION starts at 1");
    assert!(
        previous == 0 || own == previous + 1,
        "a gap in the lineage: VERSION must be Previous::VERSION + 1"
    );
}

const fn is_first<V: Version>() -> bool {
    <V::Previous as Version>::VERSION == 0
}

/// The oldest version of `V`'s lineage.
pub(crate) const fn oldest<V: Version>() -> u32 {
    if is_first::<V>() { V::VERSION } else { oldest::<V::Previous>() }
}

/// Decodes bytes of `stored` and upcasts them to `V`.
pub(crate) fn decode_at<V: Version>((stored, bytes): Stored<'_>) -> CastResult<V> {
    if stored == V::VERSION {
        return V::decode(bytes).map_err(|e| CastFailure::new(FailureKind::Codec, stored, stored, e));
    }
    if stored > V::VERSION || is_first::<V>() {
        let what = if stored > V::VERSION { "newer" } else { "older" };
        let source = CastError::new(format!("version {stored} is {what} than any type of this lineage"));
        return Err(CastFailure::new(FailureKind::Unknown, stored, V::VERSION, source));
    }
    let previous = decode_at::<V::Previous>((stored, bytes))?;
    V::upcast(previous).map_err(|e| {
        CastFailure::new(FailureKind::Cast(Cast::Upcast), V::VERSION.saturating_sub(1), V::VERSION, e)
    })
}

/// Encodes `record` as version `target` (at most `V::VERSION`), appending to `out`. `last` is the last form
/// that old code wrote; it is handed to the downcast of a type that drops fields.
pub(crate) fn encode_at<V: Version>(
    record: &V,
    target: u32,
    last: Option<Stored<'_>>,
    out: &mut Vec<u8>,
) -> CastResult<()> {
    if target == V::VERSION {
        return record.encode(out).map_err(|e| CastFailure::new(FailureKind::Codec, target, target, e));
    }
    if target > V::VERSION || is_first::<V>() {
        let source = CastError::new(format!("the lineage has no type for version {target}"));
        return Err(CastFailure::new(FailureKind::Unknown, V::VERSION, target, source));
    }
    let previous = downcast_once::<V>(record, last)?;
    encode_at::<V::Previous>(&previous, target, last, out)
}

fn downcast_once<V: Version>(record: &V, last: Option<Stored<'_>>) -> CastResult<V::Previous> {
    let last = match last {
        Some(last) if V::DROPS_FIELDS => Some(decode_at::<V::Previous>(last)?),
        _ => None,
    };
    record.downcast(last).map_err(|e| {
        CastFailure::new(FailureKind::Cast(Cast::Downcast), V::VERSION, V::VERSION.saturating_sub(1), e)
    })
}

/// Whether stored bytes decode as their type, and say the same when that is encoded and decoded once more.
pub(crate) fn reads_back<V: Version>((stored, bytes): Stored<'_>) -> CastResult<()> {
    if stored < V::VERSION && !is_first::<V>() {
        return reads_back::<V::Previous>((stored, bytes));
    }
    let refuse = |reason: &dyn std::fmt::Display| {
        let reason = format!("it would not be read back ({reason}), so it was not written");
        CastFailure::new(FailureKind::Codec, stored, stored, CastError::new(reason))
    };
    let read = decode_at::<V>((stored, bytes)).map_err(|e| refuse(&e.source))?;
    let again = decode_at::<V>((stored, &encoded(&read)?)).map_err(|e| refuse(&e.source))?;
    let written = |record: &V| shape::written(record).map_err(|e| refuse(&e));
    if written(&read)? == written(&again)? {
        return Ok(());
    }
    Err(refuse(&"what is written differs from what is read; look at its serde attributes and its codec"))
}

/// Whether a downcast from `V` to `target` wants the last old form.
pub(crate) const fn drops_fields<V: Version>(target: u32) -> bool {
    V::VERSION > target && !is_first::<V>() && (V::DROPS_FIELDS || drops_fields::<V::Previous>(target))
}

/// A merge, and whether the default rule had to drop what only the newer form held.
pub(crate) struct Merged<T> {
    pub(crate) record: T,
    pub(crate) dropped: bool,
}

/// `merge(main, companion)`: puts together what an old writer wrote and the last newer record. Over several
/// versions this is the composition of the lenses, one version at a time.
pub(crate) fn merge_at<V: Version>(main: Stored<'_>, last: V) -> CastResult<Merged<V>> {
    let previous_version = <V::Previous as Version>::VERSION;
    let last_bytes = encoded(&last)?;
    let (previous, dropped_below) = if main.0 >= previous_version || is_first::<V>() {
        (decode_at::<V::Previous>(main)?, false)
    } else {
        let below = merge_at::<V::Previous>(main, downcast_once(&last, Some(main))?)?;
        (below.record, below.dropped)
    };
    let previous_bytes = encoded(&previous)?;
    let failed = |cast| move |e| CastFailure::new(FailureKind::Cast(cast), previous_version, V::VERSION, e);
    if let Some(record) = V::merge(previous, last).map_err(failed(Cast::Merge))? {
        return Ok(Merged { record, dropped: dropped_below });
    }
    // The default: keep the newer form if it says the same to old code.
    let last: V = decode_at((V::VERSION, &last_bytes))?;
    let seen = downcast_once(&last, Some((previous_version, &previous_bytes)))?;
    if encoded(&seen)? == previous_bytes {
        return Ok(Merged { record: last, dropped: dropped_below });
    }
    let previous = decode_at::<V::Previous>((previous_version, &previous_bytes))?;
    let record = V::upcast(previous).map_err(failed(Cast::Upcast))?;
    Ok(Merged { record, dropped: true })
}

pub(crate) fn encoded<V: Version>(record: &V) -> CastResult<Vec<u8>> {
    let mut out = Vec::new();
    encode_at(record, V::VERSION, None, &mut out)?;
    Ok(out)
}

/// Checks `record` against the rules of `active`, by downcasting if it is older than `V`. Rules of a version
/// that the code does not know bind nobody here.
pub(crate) fn validate_at<V: Version>(record: &V, active: u32, last: Option<Stored<'_>>) -> CastResult<()> {
    if active == V::VERSION {
        return record
            .validate()
            .map_err(|e| CastFailure::new(FailureKind::Cast(Cast::Validate), active, active, e));
    }
    if active > V::VERSION || is_first::<V>() {
        return Ok(());
    }
    validate_at::<V::Previous>(&downcast_once(record, last)?, active, last)
}

type MergedBytes = CastResult<Merged<Vec<u8>>>;

/// Casts to one version, from bytes to bytes.
#[derive(Clone, Copy)]
pub(crate) struct Casts {
    pub(crate) version: u32,
    pub(crate) same_bytes: bool,
    pub(crate) codec: &'static str,
    pub(crate) examine: fn() -> Result<Examined, String>,
    upcast: fn(Stored<'_>) -> CastResult<Vec<u8>>,
    merge: fn(Stored<'_>, &[u8]) -> MergedBytes,
    reads_back: fn(Stored<'_>) -> CastResult<()>,
}

impl Casts {
    fn of<V: Version>() -> Casts {
        Casts {
            version: V::VERSION,
            same_bytes: V::SAME_BYTES,
            codec: V::CODEC,
            examine: shape::examine::<V>,
            upcast: |stored| {
                let record = decode_at::<V>(stored)?;
                validate_at(&record, V::VERSION, None)?;
                encoded(&record)
            },
            merge: |main, companion| {
                let merged = merge_at::<V>(main, decode_at((V::VERSION, companion))?)?;
                validate_at(&merged.record, V::VERSION, None)?;
                Ok(Merged { record: encoded(&merged.record)?, dropped: merged.dropped })
            },
            reads_back: reads_back::<V>,
        }
    }

    /// The record in this version, validated, and read back if it is to be checked.
    pub(crate) fn upcast(&self, stored: Stored<'_>, check: bool) -> CastResult<Vec<u8>> {
        self.guarded(Cast::Upcast, stored.0, || {
            let record = (self.upcast)(stored)?;
            self.checked(check, &record).map(|()| record)
        })
    }

    /// `merge(main, companion)`, validated, and read back if it is to be checked.
    pub(crate) fn merge(&self, main: Stored<'_>, companion: &[u8], check: bool) -> MergedBytes {
        self.guarded(Cast::Merge, main.0, || {
            let merged = (self.merge)(main, companion)?;
            self.checked(check, &merged.record).map(|()| merged)
        })
    }

    fn checked(&self, check: bool, record: &[u8]) -> CastResult<()> {
        if check { (self.reads_back)((self.version, record)) } else { Ok(()) }
    }

    /// A panic in the user's cast is that record's failure: it must not end the worker.
    fn guarded<T>(&self, cast: Cast, from: u32, call: impl FnOnce() -> CastResult<T>) -> CastResult<T> {
        caught(call).unwrap_or_else(|text| {
            let source = CastError::new(format!("the cast panicked: {text}"));
            Err(CastFailure::new(FailureKind::Cast(cast), from, self.version, source))
        })
    }
}

/// All versions that a handle's code knows, oldest first.
pub(crate) struct Lineage {
    casts: Vec<Casts>,
}

impl Lineage {
    pub(crate) fn of<V: Version>() -> Lineage {
        let mut casts = Vec::new();
        collect::<V>(&mut casts);
        Lineage { casts }
    }

    pub(crate) fn newest(&self) -> u32 {
        self.casts.last().map_or(0, |c| c.version)
    }

    pub(crate) fn at(&self, version: u32) -> Option<&Casts> {
        self.casts.iter().find(|c| c.version == version)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Casts> {
        self.casts.iter()
    }
}

fn collect<V: Version>(casts: &mut Vec<Casts>) {
    if !is_first::<V>() {
        collect::<V::Previous>(casts);
    }
    casts.push(Casts::of::<V>());
}

/// `merge_at` for a view that may be newer than the migration's `to`: merges there, then upcasts.
pub(crate) fn merge_up<V: Version>(to: u32, main: Stored<'_>, companion: &[u8]) -> CastResult<Merged<V>> {
    if V::VERSION <= to || is_first::<V>() {
        return merge_at(main, decode_at((to, companion))?);
    }
    let below = merge_up::<V::Previous>(to, main, companion)?;
    let record = V::upcast(below.record).map_err(|e| {
        CastFailure::new(FailureKind::Cast(Cast::Upcast), V::VERSION.saturating_sub(1), V::VERSION, e)
    })?;
    Ok(Merged { record, dropped: below.dropped })
}

/// [`assert_chain`] for a whole lineage.
pub(crate) const fn assert_chain_of<V: Version>() {
    assert_chain::<V>();
    if !is_first::<V>() {
        assert_chain_of::<V::Previous>();
    }
}
