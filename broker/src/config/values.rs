//! How the values of configuration keys are read and shown.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// Why a value does not become that of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// No key of ours and no name of Kafka's is called so.
    #[error("unknown key '{key}'{}", .suggestion.as_ref().map(|s| format!(": did you mean '{s}'?")).unwrap_or_default())]
    Unknown {
        /// The name, as it was said.
        key: String,
        /// The known name that looks most like it, where one does.
        suggestion: Option<String>,
    },
    /// The value is not one that the key can have.
    #[error("{key} = {value}: {why}{}", if range.is_empty() { String::new() } else { format!(" (legal: {range})") })]
    Invalid {
        /// The name that it was said under, ours or Kafka's.
        key: &'static str,
        /// The value, as it was said.
        value: String,
        /// What is wrong with it, in words.
        why: String,
        /// Legal values, for people; empty where `why` has said it all.
        range: &'static str,
    },
    /// The name is known, and it means nothing here, or only one value holds.
    #[error("{key} cannot be set: {why}")]
    Refused {
        /// The name, Kafka's or one that was ours.
        key: String,
        /// The reason, in words.
        why: String,
    },
}

pub(super) fn number<T: FromStr + PartialOrd + Display>(text: &str, least: T, most: T) -> Result<T, String> {
    let value: T = text.trim().parse().map_err(|_| "not a whole number".to_string())?;
    if value < least || value > most {
        return Err(format!("outside {least}..={most}"));
    }
    Ok(value)
}

fn count_and_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    (count, unit.trim())
}

/// `4096`, `64 KiB`, `1MiB`, `2 GiB`.
pub(super) fn bytes(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let (count, unit) = count_and_unit(text);
    let unit: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => return Err(format!("unknown unit '{other}': B, KiB, MiB or GiB")),
    };
    let count: u64 = count.parse().map_err(|_| "not a size".to_string())?;
    let value = count.checked_mul(unit).ok_or("too large")?;
    if value < least || value > most {
        return Err(format!("outside {least}..={most} bytes"));
    }
    Ok(value)
}

/// `0`, `250 ms`, `1s`, `30m`, `2h`, `7d`.
pub(super) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let (count, unit) = count_and_unit(text);
    let count: u64 = count.parse().map_err(|_| "not a duration".to_string())?;
    let unit_ms = match unit {
        "" if count == 0 => 0,
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => return Err(format!("unknown unit '{other}': ms, s, m, h or d")),
    };
    let value = Duration::from_millis(count.checked_mul(unit_ms).ok_or("too long")?);
    if value < least || value > most {
        return Err(format!("outside {least:?}..={most:?}"));
    }
    Ok(value)
}

/// A value, or what stands for no bound: its word, or Kafka's -1.
pub(super) fn or_none<T>(
    text: &str,
    none: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match text.trim() {
        "-1" => Ok(None),
        word if word == none => Ok(None),
        text => read(text).map(Some),
    }
}

pub(super) fn shown_or(value: Option<impl Display>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), |value| value.to_string())
}

/// Between 0 and 1, in millionths.
pub(super) fn ratio(text: &str) -> Result<u32, String> {
    match text.trim().parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok((ratio * 1e6).round() as u32),
        _ => Err("not a number between 0 and 1".to_owned()),
    }
}

pub(super) fn shown_ratio(ppm: u32) -> String {
    (f64::from(ppm) / 1e6).to_string()
}

pub(super) fn shown(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0 => "0ms".into(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

pub(super) fn endpoint(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("not HOST:PORT")?;
    if host.is_empty() {
        return Err("the host is missing".into());
    }
    port.parse::<u16>().map_err(|_| format!("'{port}' is not a port"))?;
    Ok(text.into())
}
