//! Durations as people write them in a scenario: `250ms`, `3h 40m`, `forever`, `-5s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const UNITS: [(&str, u64); 9] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

/// A length of time: a sum of numbers with units, `1m 30s` or `1.5s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    For(Duration),
    Forever,
}

/// A signed length of time, for clocks that are early or late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset {
    pub nanos: i64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is no duration: write numbers with a unit of d, h, m, s, ms, us, ns, as in \"3h 40m\" or \"250ms\""
)]
pub struct DurationError {
    text: String,
}

impl Span {
    pub const ZERO: Span = Span(Duration::ZERO);

    pub const fn millis(ms: u64) -> Span {
        Span(Duration::from_millis(ms))
    }

    pub const fn secs(s: u64) -> Span {
        Span(Duration::from_secs(s))
    }
}

impl Extent {
    pub fn is_forever(&self) -> bool {
        matches!(self, Extent::Forever)
    }

    /// When something that starts at `from` is over, in nanoseconds; `u64::MAX` is never.
    pub fn end(&self, from_ns: u64) -> u64 {
        match self {
            Extent::For(length) => from_ns.saturating_add(nanos(*length)),
            Extent::Forever => u64::MAX,
        }
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl FromStr for Span {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Span, DurationError> {
        let wrong = || DurationError { text: text.to_owned() };
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Span::ZERO);
        }
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits =
                rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').ok_or_else(wrong)?;
            let number: String = rest[..digits].chars().filter(|c| *c != '_').collect();
            rest = rest[digits..].trim_start();
            let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
            let unit = &rest[..letters];
            rest = rest[letters..].trim_start();
            let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            let part = match number.split_once('.') {
                None => number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor)),
                Some((whole, fraction)) => decimal(whole, fraction, *factor),
            };
            total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        }
        Ok(Span(Duration::from_nanos(total)))
    }
}

/// `whole.fraction` times `factor`, without floating point: equal text is equal nanoseconds everywhere.
fn decimal(whole: &str, fraction: &str, factor: u64) -> Option<u64> {
    if fraction.len() > 12 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let nanos = u128::from(whole) * u128::from(factor) + part * u128::from(factor) / scale;
    u64::try_from(nanos).ok()
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = nanos(self.0);
        if rest == 0 {
            return f.write_str("0s");
        }
        let mut first = true;
        for (unit, factor) in UNITS {
            if unit == "min" || unit == "µs" || rest < factor {
                continue;
            }
            if !first {
                f.write_str(" ")?;
            }
            first = false;
            write!(f, "{}{unit}", rest / factor)?;
            rest %= factor;
        }
        Ok(())
    }
}

impl FromStr for Extent {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Extent, DurationError> {
        match text.trim() {
            "forever" => Ok(Extent::Forever),
            other => other.parse().map(|Span(length)| Extent::For(length)),
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extent::For(length) => Span(*length).fmt(f),
            Extent::Forever => f.write_str("forever"),
        }
    }
}

impl FromStr for Offset {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Offset, DurationError> {
        let trimmed = text.trim();
        let (sign, rest) = match trimmed.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, trimmed.strip_prefix('+').unwrap_or(trimmed)),
        };
        let Span(length) = rest.parse()?;
        let nanos = i64::try_from(length.as_nanos()).map_err(|_| DurationError { text: text.to_owned() })?;
        Ok(Offset { nanos: sign * nanos })
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        Span(Duration::from_nanos(self.nanos.unsigned_abs())).fmt(f)
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )*};
}
pub(crate) use as_text;

as_text!(Span, Extent, Offset);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ns) in [
            ("3h 40m", 13_200_000_000_000),
            ("3h40m", 13_200_000_000_000),
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            ("0.1us", 100),
            ("1_000 ms", 1_000_000_000),
            ("0", 0),
            ("2min", 120_000_000_000),
        ] {
            assert_eq!(text.parse::<Span>().unwrap().0, Duration::from_nanos(ns), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_by_name() {
        for text in ["", "5", "s", "5 parsecs", "-5s", "1.2.3s", "999999999999d", ".s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        let error = "5 parsecs".parse::<Extent>().unwrap_err().to_string();
        assert!(error.contains("5 parsecs"), "{error}");
    }

    #[test]
    fn printing_a_duration_and_reading_it_back_gives_the_same() {
        for ns in [0, 1, 999, 1_000, 61_000_000_000, 13_200_000_000_123, 86_400_000_000_001] {
            let span = Span(Duration::from_nanos(ns));
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        assert_eq!("forever".parse::<Extent>().unwrap().to_string(), "forever");
        assert_eq!("-1m 5s".parse::<Offset>().unwrap().to_string(), "-1m 5s");
    }
}
