//! Arguments that several commands have, and how their values are read.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;

use crate::client::{Client, Failure, Topic, TopicPartition, offsets};

/// Whom a command asks, and how it tells what it heard.
#[derive(Args)]
pub struct Connect {
    /// Nodes to ask, with commas between them; each tells where all the others are
    #[arg(long, short, env = "CHRONIK_BOOTSTRAP", value_name = "HOST:PORT", value_delimiter = ',',
        default_value = "127.0.0.1:9092", value_parser = address, global = true)]
    pub bootstrap: Vec<String>,
    /// JSON in place of tables, under names that stay
    #[arg(long, global = true)]
    pub json: bool,
}

/// The same, with one deadline over all of it.
#[derive(Args)]
pub struct Asking {
    #[command(flatten)]
    pub connect: Connect,
    /// For how long it is tried
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration, global = true)]
    pub timeout: Duration,
}

impl Asking {
    pub fn client(&self) -> Client {
        Client::new(&self.connect.bootstrap, self.timeout)
    }

    pub fn json(&self) -> bool {
        self.connect.json
    }
}

fn address(text: &str) -> Result<String, String> {
    let port = text.trim().rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(_)) => Ok(text.trim().to_owned()),
        _ => Err("it is HOST:PORT, for example 127.0.0.1:9092".to_owned()),
    }
}

/// `500ms`, `10s`, `2min`.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Ok(_) => Err("it is more than 0".to_owned()),
        Err(error) => Err(format!("{error} (for example 500ms, 10s or 2min)")),
    }
}

/// Milliseconds since 1970, of a time in UTC.
pub fn datetime(text: &str) -> Result<i64, String> {
    if let Some(ms) = text.strip_prefix('@') {
        return ms.parse().map_err(|_| "after @ come milliseconds since 1970".to_owned());
    }
    let is_day = text.len() == "2026-01-31".len();
    let whole = if is_day { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&whole)
        .map_err(|_| "it is a time in UTC, as 2026-01-31T18:30:00Z, or @ and milliseconds".to_owned())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "it is before 1970".to_owned())?;
    i64::try_from(since.as_millis()).map_err(|_| "it is too late".to_owned())
}

/// As it is shown in tables.
pub fn time_text(ms: i64) -> Option<String> {
    let since = Duration::from_millis(u64::try_from(ms).ok()?);
    // The last year that can be written.
    (since.as_secs() < 253_402_300_800)
        .then(|| humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string())
}

/// Where to begin to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Earliest,
    Latest,
    Offset(i64),
    /// Milliseconds since 1970.
    Time(i64),
}

pub fn from(text: &str) -> Result<From, String> {
    match text {
        "earliest" => Ok(From::Earliest),
        "latest" => Ok(From::Latest),
        _ => match text.parse() {
            Ok(0..) => Ok(From::Offset(text.parse().unwrap_or(i64::MAX))),
            _ => datetime(text)
                .map(From::Time)
                .map_err(|why| format!("earliest, latest, an offset or a time: {why}")),
        },
    }
}

/// `name=value`; the value may be empty, and may have further signs in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub value: String,
}

pub fn entry(text: &str) -> Result<Entry, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok(Entry { name: name.trim().to_owned(), value: value.to_owned() })
        }
        _ => Err("it is NAME=VALUE, for example retention.ms=60000".to_owned()),
    }
}

/// A topic, or some partitions of it: `orders`, `orders:0,2`, `orders:4-7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub topic: String,
    /// None for all.
    pub partitions: Option<BTreeSet<i32>>,
}

/// More in one range than any topic has.
const RANGE_MAX: i32 = 100_000;

pub fn selection(text: &str) -> Result<Selection, String> {
    let why = || "it is TOPIC, TOPIC:0,2 or TOPIC:4-7".to_owned();
    let (topic, listed) = text.split_once(':').map_or((text, None), |(topic, listed)| (topic, Some(listed)));
    if topic.is_empty() {
        return Err(why());
    }
    let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number >= 0).ok_or_else(why);
    let partitions = listed.map(|listed| {
        let mut all = BTreeSet::new();
        for part in listed.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if last < first || last - first > RANGE_MAX {
                return Err(why());
            }
            all.extend(first..=last);
        }
        Ok(all)
    });
    Ok(Selection { topic: topic.to_owned(), partitions: partitions.transpose()? })
}

impl Selection {
    /// What is selected of the topic, which has to have it.
    pub fn of(&self, topic: &Topic) -> Result<BTreeSet<TopicPartition>, Failure> {
        let Some(wanted) = &self.partitions else { return Ok(offsets::partitions(topic).collect()) };
        let one = |partition: &i32| match topic.partition(*partition) {
            Some(_) => Ok(TopicPartition { topic: topic.name.clone(), partition: *partition }),
            None => Err(Failure::Usage(format!(
                "topic {} has no partition {partition}: it has {}, from 0 on",
                topic.name,
                topic.partitions.len()
            ))),
        };
        wanted.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown_in_utc() {
        assert_eq!(datetime("2026-01-31T18:30:00Z"), Ok(1_769_884_200_000));
        assert_eq!(datetime("2026-01-31 18:30:00.250"), Ok(1_769_884_200_250));
        assert_eq!(datetime("2026-01-31"), Ok(1_769_817_600_000));
        assert_eq!(datetime("@1769884200000"), Ok(1_769_884_200_000));
        assert_eq!(time_text(1_769_884_200_250).as_deref(), Some("2026-01-31T18:30:00.250Z"));
        assert_eq!((time_text(-1), time_text(i64::MAX)), (None, None));
        for wrong in ["yesterday", "@", "2026-13-01", ""] {
            assert!(datetime(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn where_to_begin_is_a_word_an_offset_or_a_time() {
        assert_eq!(from("earliest"), Ok(From::Earliest));
        assert_eq!(from("latest"), Ok(From::Latest));
        assert_eq!(from("17"), Ok(From::Offset(17)));
        assert_eq!(from("2026-01-31"), Ok(From::Time(1_769_817_600_000)));
        assert!(from("-3").is_err() && from("first").is_err());
    }

    #[test]
    fn a_selection_is_a_topic_and_perhaps_partitions() {
        let some = |partitions: &[i32]| {
            Ok(Selection { topic: "orders".into(), partitions: Some(partitions.iter().copied().collect()) })
        };
        assert_eq!(selection("orders"), Ok(Selection { topic: "orders".into(), partitions: None }));
        assert_eq!(selection("orders:2,0"), some(&[0, 2]));
        assert_eq!(selection("orders:1,4-6"), some(&[1, 4, 5, 6]));
        for wrong in ["", ":1", "orders:", "orders:x", "orders:3-1", "orders:-1", "orders:0-2000000000"] {
            assert!(selection(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn entries_addresses_and_durations_that_mean_nothing_are_refused() {
        assert_eq!(entry("a.b=c=d"), Ok(Entry { name: "a.b".into(), value: "c=d".into() }));
        assert!(entry("a.b").is_err() && entry("=c").is_err());
        assert!(address("[::1]:9092").is_ok() && address("host:1").is_ok());
        assert!(address("host").is_err() && address(":9092").is_err() && address("host:99999").is_err());
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1_500)));
        assert!(duration("0s").is_err() && duration("5").is_err());
    }
}
