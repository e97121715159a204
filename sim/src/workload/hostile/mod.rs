//! Clients that do what the protocol allows and no client should. What they are answered is nobody's business: they
//! are counted, and the other clients tell what they bring about.

mod raw;
mod poisoners;
mod deserters;
mod floods;
mod creators;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use io_backend::Backend;
use kafka_protocol::messages::{ApiKey, FetchRequest};

use self::raw::{Habit, PAUSE, Raw};
use super::Field;
use super::client::Client;
use super::connection::{frame, ns};
use super::fetcher::{self, FetchTerms};
use super::shape::Limits;
use crate::history::{AckMode, At};
use crate::scenario::Hostile;
use crate::streams::Stream;

/// Who drips does so this often, each in his way: the slowest just before a broker that hangs up after half a minute of
/// silence does so.
const DRIPS: [Duration; 3] = [Duration::from_secs(29), Duration::from_secs(5), Duration::from_millis(500)];
/// Requests that one connection queues.
const PIPELINED: i32 = 100;
/// Fetches whose answers one connection does not read.
const UNREAD: i32 = 4;
const LONG_POLL: Duration = Duration::from_secs(600);
/// Where they come from; the first probe comes from the first of them.
pub(super) const MACHINE: &str = "stranger-1";

/// Starts them all; `machine` gives the backend of a machine by its name.
pub(super) fn start<B: Backend>(
    hostile: &Hostile,
    duration: Duration,
    seed: u64,
    field: &Field,
    limits: Limits,
    machine: &mut impl FnMut(&str) -> B,
) {
    let window = window(hostile, duration);
    let mut number = 0;
    let mut next = |what: &str| {
        number += 1;
        let own = format!("stranger-{number}");
        let backend = machine(if hostile.from_one_address { MACHINE } else { &own });
        let stream = Stream::new(seed, &format!("workload {what} {number}"));
        (Client::new(backend, &format!("{what}-{number}"), field), stream)
    };
    for index in 0..hostile.announcers {
        let (client, mut stream) = next("announcer");
        let habit = if index % 2 == 0 { Habit::Silent } else { Habit::DripsBytes(drip(&mut stream)) };
        let start = announcement(limits);
        stay(client, window, stream, habit, "large requests announced", move |_| start.clone());
    }
    for _ in 0..hostile.pollers {
        let (client, stream) = next("poller");
        let terms = FetchTerms { wait: LONG_POLL, min_bytes: 1 << 30, partition_bytes: 1, version: 12 };
        stay(client, window, stream, Habit::Reads, "long polls in line", move |field| {
            fetches(field, terms, PIPELINED)
        });
    }
    for index in 0..hostile.non_readers {
        let (client, mut stream) = next("non-reader");
        let habit = if index % 2 == 0 { Habit::Silent } else { Habit::ReadsDrops(drip(&mut stream)) };
        let terms = FetchTerms { wait: Duration::ZERO, min_bytes: 1, partition_bytes: i32::MAX, version: 12 };
        stay(client, window, stream, habit, "answers left unread", move |field| {
            fetches(field, terms, UNREAD)
        });
    }
    for _ in 0..hostile.idlers {
        let (client, stream) = next("idler");
        stay(client, window, stream, Habit::Silent, "connections that say nothing", |_| Bytes::new());
    }
    for index in 0..hostile.flooders {
        let (client, stream) = next("flooder");
        floods::start(client, index, window, stream);
    }
    for index in 0..hostile.deserters {
        let (client, stream) = next("deserter");
        let acks = if hostile.deserters_unacknowledged { AckMode::None } else { AckMode::All };
        deserters::start(client, index, limits, acks, window, stream);
    }
    for index in 0..hostile.poisoners {
        let (client, stream) = next("poisoner");
        poisoners::start(client, index, window, stream);
    }
    for _ in 0..hostile.creators {
        let (client, _) = next("creator");
        creators::start(client, window);
    }
}

/// From when until when, in nanoseconds of the world.
fn window(hostile: &Hostile, duration: Duration) -> (At, At) {
    let from = hostile.from.map_or(duration / 6, |span| span.0);
    let until = hostile.until.map_or(duration * 5 / 6, |span| span.0);
    (ns(from), ns(until))
}

fn drip(stream: &mut Stream) -> Duration {
    DRIPS[stream.below(DRIPS.len() as u64) as usize]
}

/// A client that connects, says what `begin` gives, and then stays as is its habit, again whenever it is cut off.
fn stay<B: Backend>(
    client: Client<B>,
    (from, until): (At, At),
    mut stream: Stream,
    habit: Habit,
    counted: &'static str,
    begin: impl Fn(&Field) -> Bytes + Send + 'static,
) {
    let work = client.clone();
    client.begin("hostile", async move {
        let backend = work.backend.clone();
        let begins = from + stream.below(1_000_000_000);
        backend.sleep(Duration::from_nanos(begins.saturating_sub(work.now()))).await;
        while work.now() < until {
            if let Ok(mut raw) = Raw::connect(&work).await {
                work.field.notes.write().count(counted);
                let said = begin(&work.field);
                if raw.say(&said, until).await.is_ok() {
                    raw.stay(habit, until).await;
                }
            }
            let pause = ns(PAUSE).min(until.saturating_sub(work.now()));
            backend.sleep(Duration::from_nanos(pause)).await;
        }
    });
}

/// The beginning of the largest produce request that is allowed.
fn announcement(limits: Limits) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&u32::try_from(limits.request_bytes).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&(ApiKey::Produce as i16).to_be_bytes());
    bytes.extend_from_slice(&9i16.to_be_bytes());
    bytes.extend_from_slice(&1i32.to_be_bytes());
    bytes.freeze()
}

/// Fetches of everything, one behind another.
fn fetches(field: &Field, terms: FetchTerms, count: i32) -> Bytes {
    let from: Vec<(usize, i64)> = (0..field.places.len()).map(|index| (index, 0)).collect();
    let request: FetchRequest =
        fetcher::request(&field.places, &from, terms, None, |_| None).with_max_bytes(i32::MAX);
    let mut bytes = BytesMut::new();
    for number in 0..count {
        // What cannot be encoded is not said.
        let _ = frame("stranger", number, &request, terms.version, &mut bytes);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Span;

    #[test]
    fn they_come_after_a_sixth_and_go_after_five_unless_it_is_said() {
        let minute = Duration::from_secs(60);
        assert_eq!(window(&Hostile::default(), minute), (10_000_000_000, 50_000_000_000));
        let said = Hostile { from: Some(Span::secs(1)), until: Some(Span::secs(2)), ..Hostile::default() };
        assert_eq!(window(&said, minute), (1_000_000_000, 2_000_000_000));
    }

    #[test]
    fn an_announcement_is_of_a_produce_request_of_the_largest_size() {
        let limits = Limits { batch_bytes: 1, request_bytes: 1 << 20, partitions: 1 };
        let bytes = announcement(limits);
        assert_eq!(bytes[..6], [0, 0x10, 0, 0, 0, 0]);
        assert!(bytes.len() < 100);
    }
}
