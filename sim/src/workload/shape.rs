//! How the clients of a run are: as the scenario says or, where it is `varied`, as the seed draws around it.
//!
//! Draws come from the workload's own streams, so a plan stays the same whatever is drawn here.

use std::time::Duration;

use broker::config::Config;

use super::batch::{HEADER_BYTES, RECORD_BYTES_MAX};
use super::codec;
use crate::history::AckMode;
use crate::scenario::{Cluster, Compression, Hostile, Workload};
use crate::streams::Stream;

/// What the broker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub batch_bytes: usize,
    pub request_bytes: usize,
    pub partitions: usize,
}

impl Limits {
    pub fn of(config: &Config, cluster: &Cluster) -> Limits {
        Limits {
            batch_bytes: config.topics.max_batch_bytes,
            request_bytes: config.server.request_bytes,
            partitions: cluster.topics as usize * usize::try_from(cluster.partitions).unwrap_or(1),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProducerShape {
    pub number: u32,
    pub acks: AckMode,
    pub idempotent: bool,
    /// Records per second.
    pub rate: f64,
    pub size: usize,
    pub mixed_sizes: bool,
    pub batch: u32,
    pub burst: u32,
    pub in_flight: usize,
    pub partitions_per_request: usize,
    pub codec: Compression,
    pub keyed: bool,
    pub request_timeout: Duration,
    /// How often an idempotent one begins anew, under a new id.
    pub renew_every: Option<Duration>,
    /// The only node that it reaches.
    pub through: Option<u32>,
    pub batch_bytes: usize,
    pub request_bytes: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerShape {
    pub number: u32,
    pub long_poll: Duration,
    pub min_bytes: i32,
    pub partition_bytes: i32,
    pub fetches_in_flight: usize,
    /// Now and then a fetch leaves out some of its partitions.
    pub subsets: bool,
    pub by_id: bool,
    /// It fetches in sessions: in versions that have them.
    pub in_sessions: bool,
    /// Of Fetch; not used where topics are named by id.
    pub version: i16,
    pub reread_every: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub producers: Vec<ProducerShape>,
    pub consumers: Vec<ConsumerShape>,
    pub leavers: u32,
    pub hostile: Hostile,
}

/// Since this version of Fetch there are sessions.
const SESSIONS_SINCE: i16 = 7;
/// The longest wait that is drawn.
pub(super) const LONG_POLL_MAX: Duration = Duration::from_secs(30);

impl Shape {
    pub fn of(load: &Workload, limits: Limits, seed: u64) -> Shape {
        if load.varied { Shape::varied(load, limits, seed) } else { Shape::written(load, limits) }
    }

    fn written(load: &Workload, limits: Limits) -> Shape {
        let producers = (0..load.producers).map(|index| producer(load, limits, index)).collect();
        let consumers = (0..load.consumers).map(|index| consumer(load, index)).collect();
        Shape { producers, consumers, leavers: load.leavers, hostile: load.hostile.clone() }
    }

    fn varied(load: &Workload, limits: Limits, seed: u64) -> Shape {
        let mut stream = Stream::new(seed, "workload shape");
        let mut load = load.clone();
        load.producers = count_around(&mut stream, load.producers);
        load.consumers = count_around(&mut stream, load.consumers);
        load.leavers = count_around(&mut stream, load.leavers);
        vary_hostile(&mut load.hostile, &mut stream);
        let mut shape = Shape::written(&load, limits);
        for producer in &mut shape.producers {
            let mut stream = Stream::new(seed, &format!("workload shape of producer {}", producer.number));
            vary_producer(producer, &load, limits, &mut stream);
        }
        for consumer in &mut shape.consumers {
            let mut stream = Stream::new(seed, &format!("workload shape of consumer {}", consumer.number));
            vary_consumer(consumer, &load, &mut stream);
        }
        shape
    }
}

fn producer(load: &Workload, limits: Limits, index: u32) -> ProducerShape {
    let acks = load.acks.deal(index as usize, AckMode::All);
    ProducerShape {
        number: index + 1,
        acks,
        // Idempotence is only there with acks=all, as in every client.
        idempotent: acks == AckMode::All && load.idempotent.deal(index as usize, true),
        rate: load.rate,
        size: load.size,
        mixed_sizes: load.mixed_sizes,
        batch: load.batch,
        burst: load.burst.max(1),
        in_flight: load.in_flight.max(1) as usize,
        partitions_per_request: load.partitions_per_request.max(1) as usize,
        codec: load.compression.deal(index as usize, Compression::None),
        keyed: load.keyed,
        request_timeout: load.request_timeout.0,
        renew_every: load.renew_every.map(|every| every.0),
        through: load.produce_through,
        batch_bytes: limits.batch_bytes,
        request_bytes: limits.request_bytes,
    }
}

fn consumer(load: &Workload, index: u32) -> ConsumerShape {
    ConsumerShape {
        number: index + 1,
        long_poll: load.long_poll.0,
        min_bytes: i32::try_from(load.min_bytes).unwrap_or(i32::MAX),
        partition_bytes: i32::try_from(load.fetch_bytes).unwrap_or(i32::MAX),
        fetches_in_flight: load.fetches_in_flight.max(1) as usize,
        subsets: false,
        by_id: load.fetch_by_id,
        in_sessions: load.fetch_sessions.deal(index as usize, false),
        version: 12,
        reread_every: load.reread_every.0,
    }
}

fn vary_producer(shape: &mut ProducerShape, load: &Workload, limits: Limits, stream: &mut Stream) {
    // Idempotent clients keep at most five in flight; so do we all.
    shape.in_flight = pick(stream, &[shape.in_flight.min(5), 1, 2, 3, 4, 5]);
    let most = limits.partitions.min(8);
    shape.partitions_per_request =
        if stream.coin() { shape.partitions_per_request } else { stream.between(1, most as u64) as usize };
    shape.batch = pick(stream, &[shape.batch, shape.batch, 1, shape.batch * 4, 100]);
    shape.size = pick(stream, &[shape.size, shape.size, 32, shape.size * 4, 2_000]);
    shape.mixed_sizes = load.mixed_sizes || stream.per_mille(400);
    shape.burst = pick(stream, &[shape.burst, shape.burst, 4, 16]);
    shape.codec = if stream.coin() { shape.codec } else { pick(stream, &codec::ALL) };
    shape.keyed = load.keyed || stream.coin();
    shape.request_timeout *= pick(stream, &[1, 1, 1, 2]);
    let rate = load.rate * pick(stream, &[1.0, 1.0, 0.3, 2.0]);
    // Large records come more slowly: what a seed draws changes what is moved, and not how much.
    let most = (load.rate * load.size as f64).max(20_000.0);
    // So do small batches: each of them is a request, and a fetch of every consumer.
    let batches = 3.0 * load.rate / f64::from(load.batch + 1);
    shape.rate = rate.min(most / shape.size as f64).min(batches * f64::from(shape.batch + 1) / 2.0).max(1.0);
    let ms = |ms| Some(Duration::from_millis(ms));
    shape.renew_every = pick(stream, &[shape.renew_every, shape.renew_every, ms(300), ms(3_000)]);
}

fn vary_consumer(shape: &mut ConsumerShape, load: &Workload, stream: &mut Stream) {
    let ms = Duration::from_millis;
    let drawn = ms(stream.below(30_001));
    shape.long_poll = pick(stream, &[shape.long_poll, shape.long_poll, ms(0), ms(30), drawn, drawn]);
    shape.min_bytes = pick(stream, &[shape.min_bytes, shape.min_bytes, 1_000, 50_000]);
    shape.partition_bytes = pick(stream, &[shape.partition_bytes, shape.partition_bytes, 8 << 10, 32 << 10]);
    shape.fetches_in_flight = pick(stream, &[shape.fetches_in_flight, 1, 2, 3]);
    shape.subsets = stream.coin();
    shape.by_id = load.fetch_by_id || stream.per_mille(400);
    let version = pick(stream, &[12, 12, 11, 7, 4]);
    shape.version = if shape.in_sessions { version.max(SESSIONS_SINCE) } else { version };
    shape.reread_every = shape.reread_every * pick(stream, &[2, 2, 1, 4, 100]) / 2;
}

/// Some kinds stay away, others come in smaller numbers.
fn vary_hostile(hostile: &mut Hostile, stream: &mut Stream) {
    for count in [
        &mut hostile.announcers,
        &mut hostile.pollers,
        &mut hostile.non_readers,
        &mut hostile.idlers,
        &mut hostile.flooders,
        &mut hostile.deserters,
        &mut hostile.poisoners,
        &mut hostile.creators,
    ] {
        let drawn = pick(stream, &[*count, *count, count.div_ceil(2), count.div_ceil(4)]);
        *count = if stream.per_mille(600) { 0 } else { drawn };
    }
    hostile.from_one_address |= stream.coin();
    hostile.deserters_unacknowledged |= stream.coin();
}

/// One to half again as many; at least one where any was written.
fn count_around(stream: &mut Stream, written: u32) -> u32 {
    if written == 0 {
        return 0;
    }
    pick(stream, &[written, written, 1, written.div_ceil(2), written + 1, written + written.div_ceil(2)])
}

fn pick<T: Copy>(stream: &mut Stream, from: &[T]) -> T {
    from[stream.below(from.len() as u64) as usize]
}

impl ProducerShape {
    /// Sizes of the values of one batch.
    pub(super) fn sizes(&self, stream: &mut Stream) -> Vec<usize> {
        let count = stream.between(1, u64::from(self.batch)) as usize;
        let room = codec::room(self.codec, self.batch_bytes.saturating_sub(HEADER_BYTES));
        let largest = room.saturating_sub(RECORD_BYTES_MAX).max(32);
        let mut sizes = Vec::with_capacity(count);
        let mut bytes = 0;
        for _ in 0..count {
            let size = if self.mixed_sizes { self.one_size(largest, stream) } else { self.size };
            bytes += size + RECORD_BYTES_MAX;
            if bytes > room && !sizes.is_empty() {
                break;
            }
            sizes.push(size.min(largest));
        }
        sizes
    }

    fn one_size(&self, largest: usize, stream: &mut Stream) -> usize {
        let below = |stream: &mut Stream, most: usize| stream.between(32, most.max(32) as u64) as usize;
        match stream.below(200) {
            // About as large as a batch may be, and exactly.
            0 if stream.coin() => largest,
            0 => below(stream, largest),
            1..20 => below(stream, (self.size * 10).min(largest)),
            20..80 => below(stream, self.size),
            _ => self.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { batch_bytes: 64 << 10, request_bytes: 1 << 20, partitions: 4 };

    fn load(varied: bool) -> Workload {
        Workload { varied, producers: 4, consumers: 2, ..Workload::default() }
    }

    #[test]
    fn what_is_written_is_kept_where_nothing_is_varied() {
        let shape = Shape::of(&load(false), LIMITS, 1);
        assert_eq!(shape, Shape::of(&load(false), LIMITS, 2));
        assert_eq!((shape.producers.len(), shape.consumers.len()), (4, 2));
        let producer = &shape.producers[0];
        assert_eq!((producer.rate, producer.size, producer.in_flight, producer.burst), (50.0, 100, 1, 1));
        assert_eq!(shape.consumers[0].long_poll, Duration::from_millis(500));
    }

    #[test]
    fn seeds_differ_and_the_written_values_are_among_their_draws() {
        let drawn: Vec<Shape> = (0..200).map(|seed| Shape::of(&load(true), LIMITS, seed)).collect();
        assert_eq!(drawn[7], Shape::of(&load(true), LIMITS, 7), "a seed draws the same always");
        let some = |what: &dyn Fn(&Shape) -> bool| drawn.iter().filter(|shape| what(shape)).count();
        assert!(some(&|shape| shape.producers.len() == 4) > 20);
        assert!(some(&|shape| shape.producers.len() == 1) > 5);
        let producers: Vec<&ProducerShape> = drawn.iter().flat_map(|shape| &shape.producers).collect();
        let some =
            |what: &dyn Fn(&ProducerShape) -> bool| producers.iter().filter(|shape| what(shape)).count();
        for in_flight in 1..=5 {
            assert!(some(&|shape| shape.in_flight == in_flight) > 20, "{in_flight} in flight");
        }
        for codec in codec::ALL {
            assert!(some(&|shape| shape.codec == codec) > 10, "{codec:?}");
        }
        assert!(some(&|shape| shape.rate == 50.0 && shape.size == 100 && shape.batch == 8) > 20);
        assert!(some(&|shape| shape.in_flight > 5) == 0);
        let consumers: Vec<&ConsumerShape> = drawn.iter().flat_map(|shape| &shape.consumers).collect();
        assert!(consumers.iter().any(|shape| shape.long_poll > Duration::from_secs(20)));
        assert!(consumers.iter().any(|shape| shape.long_poll.is_zero()));
        assert!(consumers.iter().all(|shape| shape.long_poll <= Duration::from_secs(30)));
    }

    #[test]
    fn batches_fit_into_what_the_broker_takes() {
        let mut stream = Stream::new(1, "test");
        let mut largest = 0;
        let mut incompressible = vec![0; LIMITS.batch_bytes];
        stream.fill(&mut incompressible);
        for seed in 0..100 {
            for mut producer in Shape::of(&load(true), LIMITS, seed).producers {
                producer.mixed_sizes = true;
                for _ in 0..20 {
                    let sizes = producer.sizes(&mut stream);
                    let bytes: usize = sizes.iter().map(|size| size + RECORD_BYTES_MAX).sum();
                    let packed =
                        codec::pack(producer.codec, &incompressible[..bytes], &[7; 64]).unwrap().len();
                    assert!(!sizes.is_empty() && packed + HEADER_BYTES <= LIMITS.batch_bytes, "{packed}");
                    largest = largest.max(sizes.into_iter().max().unwrap_or(0));
                }
            }
        }
        assert!(largest > 60_000, "some are about as large as can be: {largest}");
    }
}
