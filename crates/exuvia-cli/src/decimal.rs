//! A number written in decimal, kept exactly: every text has one value, and every value one text.

use exuvia::CastError;
use serde::{Deserialize, Serialize};

/// Most digits that a [`Decimal`] read from text may have, and most of them after the point.
pub(crate) const DIGITS_MAX: u8 = 30;

/// The number `units` × 10^−`decimals`.
///
/// Two values of the same size but with different `decimals` ("1.5" and "1.50") are different: the number of
/// decimals says how precisely somebody measured, and the old text cannot be given back without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decimal {
    /// The number without its point.
    pub(crate) units: i128,
    /// How many of the digits are behind the point.
    pub(crate) decimals: u8,
}

impl Decimal {
    /// Reads plain decimal text: an optional minus, digits without needless zeros in front, and an optional
    /// point with at least one digit behind it. Anything else (a plus, an exponent, "−0") has no one text to go
    /// back to and is refused, and so is a number of more than [`DIGITS_MAX`] digits.
    pub(crate) fn parse(text: &str) -> Result<Self, CastError> {
        let refuse = || {
            CastError::new(format!(
                "{text:?} is not a plain decimal number of at most {DIGITS_MAX} digits, such as -12.5"
            ))
        };
        let magnitude = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = match magnitude.split_once('.') {
            Some((_, "")) => return Err(refuse()),
            Some(parts) => parts,
            None => (magnitude, ""),
        };
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        let needless_zero = whole.len() > 1 && whole.starts_with('0');
        if whole.is_empty() || needless_zero || !digits(whole) || !digits(fraction) {
            return Err(refuse());
        }
        let decimals = u8::try_from(fraction.len()).map_err(|_| refuse())?;
        let mut units: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            let next = units.checked_mul(10).and_then(|n| n.checked_add(i128::from(digit - b'0')));
            units = next.ok_or_else(refuse)?;
        }
        let negative = text.len() > magnitude.len();
        if negative && units == 0 {
            return Err(refuse());
        }
        let number = Self { units: if negative { -units } else { units }, decimals };
        if number.has_text() { Ok(number) } else { Err(refuse()) }
    }

    /// The text that [`Decimal::parse`] reads as this number. Fails on a number with too many digits, which no
    /// text can have given.
    pub(crate) fn text(&self) -> Result<String, CastError> {
        if !self.has_text() {
            return Err(CastError::new(format!(
                "{} with {} decimals has more than {DIGITS_MAX} digits",
                self.units, self.decimals
            )));
        }
        let width = usize::from(self.decimals) + 1;
        let mut text = format!("{:0width$}", self.units.unsigned_abs());
        if self.decimals > 0 {
            text.insert(text.len() - usize::from(self.decimals), '.');
        }
        if self.units < 0 {
            text.insert(0, '-');
        }
        Ok(text)
    }

    /// Whether the number lies between `-limit` and `limit`.
    pub(crate) fn within(&self, limit: u32) -> bool {
        match 10u128.checked_pow(u32::from(self.decimals)).and_then(|one| one.checked_mul(u128::from(limit)))
        {
            Some(limit) => self.units.unsigned_abs() <= limit,
            None => true,
        }
    }

    fn has_text(&self) -> bool {
        self.decimals <= DIGITS_MAX && self.units.unsigned_abs() < 10u128.pow(u32::from(DIGITS_MAX))
    }
}

/// Ten-thousandths of a metre in a foot: 0.3048 m exactly, by definition.
const FOOT: i128 = 3048;
const FOOT_DECIMALS: u8 = 4;

/// A height in metres. A foot is 0.3048 m exactly, so a height read in feet is exact in metres with four more
/// decimals, and goes back without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metres(pub(crate) Decimal);

impl Metres {
    /// The height in feet that `text` states.
    pub(crate) fn from_feet(text: &str) -> Result<Self, CastError> {
        let feet = Decimal::parse(text)?;
        // Within i128 and u8: a parsed number has at most `DIGITS_MAX` = 30 digits, 3048 adds four.
        Ok(Self(Decimal { units: feet.units * FOOT, decimals: feet.decimals + FOOT_DECIMALS }))
    }

    /// The height in feet, as text. Fails on a height that is no decimal fraction of a foot: whoever writes
    /// metres of their own rounds them to, say, the nearest hundredth of a foot (1.5 mm at most), so that those
    /// who still read feet see the same height.
    pub(crate) fn feet(&self) -> Result<String, CastError> {
        let Self(Decimal { units, decimals }) = *self;
        match decimals.checked_sub(FOOT_DECIMALS) {
            Some(decimals) if units % FOOT == 0 => Decimal { units: units / FOOT, decimals }.text(),
            _ => Err(CastError::new(format!(
                "a height of {units}e-{decimals} m is no decimal fraction of a foot with four more decimals; round it"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_are_one_to_one() {
        for text in
            ["0", "0.0", "-0.05", "7", "10", "-12.50", "179.951", "0.00000000000001", "123456789.123456789"]
        {
            assert_eq!(Decimal::parse(text).and_then(|d| d.text()).as_deref(), Ok(text));
        }
        assert_eq!(Decimal::parse("-0.05"), Ok(Decimal { units: -5, decimals: 2 }));
        assert_ne!(Decimal::parse("1.5"), Decimal::parse("1.50"));
    }

    #[test]
    fn text_that_is_no_plain_number_is_refused() {
        let long = "1".repeat(31);
        let longer = format!("0.{}", "1".repeat(400));
        for text in [
            "", "-", ".", "-0", "-0.00", "+1", "01", ".5", "5.", "1e5", "1,5", " 1", "1.2.3", "--1", "N38",
            &long, &longer,
        ] {
            assert!(Decimal::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_without_a_text_are_refused_on_the_way_back() {
        assert!(Decimal { units: i128::MIN, decimals: 0 }.text().is_err());
        assert!(Decimal { units: 1, decimals: 255 }.text().is_err());
    }

    #[test]
    fn feet_are_exact_in_metres() {
        assert_eq!(Metres::from_feet("100"), Ok(Metres(Decimal { units: 304_800, decimals: 4 })));
        for feet in ["0", "-1266", "14965", "-12.5", "0.25", "999.99"] {
            assert_eq!(Metres::from_feet(feet).and_then(|m| m.feet()).as_deref(), Ok(feet));
        }
        assert!(
            Metres(Decimal { units: 1, decimals: 0 }).feet().is_err(),
            "a metre is no fraction of a foot"
        );
        assert!(Metres(Decimal { units: 3049, decimals: 4 }).feet().is_err());
    }

    #[test]
    fn a_range_holds_its_ends_and_nothing_beyond() {
        let within = |text, limit| Decimal::parse(text).is_ok_and(|d| d.within(limit));
        assert!(within("90", 90) && within("-90.000", 90) && within("89.999999", 90) && within("0", 0));
        assert!(!within("90.000001", 90) && !within("-91", 90));
        // Beyond what the limit can be scaled to, every number that an i128 holds is smaller than the limit.
        assert!(Decimal { units: i128::MAX, decimals: 60 }.within(1));
    }
}
