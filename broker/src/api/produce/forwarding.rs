//! A produce for a partition that another node leads, for clients that reach only this one (`server.forward_produce`): its
//! batch goes to the leader over the link that there is, behind what went before it, and its outcome comes back.
//!
//! ```text
//! question: topic 16 | partition i32 | version of produce i16 | acks i8 | behind its producer's first u8 | milliseconds left u32 | batch
//! answer:   0 u8 | base offset i64 | append time i64 | log start i64, or 1 u8 | error code i16 | text
//! ```
//!
//! Nothing is forwarded twice: a leader that does not lead refuses, and the client finds out who does. The connection of the
//! client stays the same meanwhile, so what it sends next may go to another node than what is not answered yet: a producer's first
//! batch counts as refused until it is answered, and later ones say that they come behind it.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use io_backend::{Backend, Deadline, Moment, Receiver};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use uuid::Uuid;

use super::appending::{self, InLine, Refusal, Wanted};
use crate::context::Context;
use crate::ids::{BrokerId, Offset, PartitionId, TopicId};
use crate::limits;
use crate::log::batch::{BatchHeader, ProducerStamp};
use crate::metadata::TopicImage;
use crate::partition::{Acks, Appended, Destination, Unacknowledged};
use crate::peers::asks::{AskError, Asked, Asks, Question, Subject};
use crate::routing::{RoutingView, TopicKey};

/// A batch on its way to its leader.
pub struct Forwarded<B: Backend> {
    /// `None`: its producer asks for no answer.
    asked: Option<Asked<B>>,
    partition: PartitionId,
    topic: Arc<str>,
    producer: Option<ProducerStamp>,
    deadline: Deadline,
    began: Moment,
}

/// How a batch is to be appended, wherever that is.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Of the produce request.
    pub version: i16,
    /// When it is answered.
    pub acks: Acks,
    /// And by when.
    pub deadline: Deadline,
}

/// Sends the batch to the leader; it stands behind those that were sent before.
///
/// # Errors
///
/// It cannot be reached: nothing was sent.
pub fn begin<B: Backend>(
    context: &Context<B>,
    asks: &Asks<B>,
    leader: BrokerId,
    topic: &TopicImage,
    data: &PartitionProduceData,
    terms: Terms,
) -> Result<Forwarded<B>, AskError> {
    let Terms { version, acks, deadline } = terms;
    let id = PartitionId { topic: topic.id, index: data.index };
    let to = Destination { partition: id, topic: &topic.name };
    let left = match deadline {
        Deadline::At(at) => at.since(context.backend.now()),
        Deadline::Unbounded(_) => limits::PRODUCE_DEADLINE,
    };
    let records = data.records.as_deref().unwrap_or_default();
    let producer = BatchHeader::read(records).ok().and_then(|header| header.producer());
    let began = context.backend.now();
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.put_u128(id.topic.0.as_u128());
    head.put_i32(id.index);
    head.put_i16(version);
    head.put_i8(match acks {
        Acks::None => 0,
        Acks::Leader => 1,
        Acks::All => -1,
    });
    head.put_u8(context.first_refused.is_before(to, producer, began).into());
    head.put_u32(u32::try_from(left.as_millis()).unwrap_or(u32::MAX));
    context.first_refused.refused(id, producer, began);
    let asked = asks.begin(leader, Subject::Produce, &[&head, records])?;
    context.metrics.produce_forward_count.inc();
    let asked = (acks != Acks::None).then_some(asked);
    Ok(Forwarded { asked, partition: id, topic: topic.name.clone(), producer, deadline, began })
}

const HEAD_BYTES: usize = 16 + 4 + 2 + 1 + 1 + 4;

impl<B: Backend> Forwarded<B> {
    /// What became of it.
    pub async fn wait(self, context: &Context<B>) -> Result<Appended, Refusal> {
        let Some(asked) = self.asked else {
            let unasked = Offset(-1);
            return Ok(Appended {
                base_offset: unasked,
                log_start: unasked,
                log_append_time_ms: -1,
                duplicate: false,
            });
        };
        let answered = asked.wait(self.deadline).await;
        let took = context.backend.now().since(self.began);
        context.metrics.produce_forward_duration_ms.observe(took.as_secs_f64() * 1e3);
        let outcome = match answered {
            Ok(answer) => read(answer),
            // It may have been written.
            Err(_) => Err(ResponseError::RequestTimedOut.into()),
        };
        match &outcome {
            Err(refusal) if refusal.code.is_retriable() => {
                context.first_refused.refused(self.partition, self.producer, context.backend.now());
            }
            // One that was refused for good does not come again, and what follows does not wait for it.
            _ => {
                let to = Destination { partition: self.partition, topic: &self.topic };
                context.first_refused.came_through(to, self.producer);
            }
        }
        outcome
    }
}

fn write(outcome: &Result<Appended, Refusal>) -> BytesMut {
    let mut answer = BytesMut::new();
    match outcome {
        Ok(appended) => {
            answer.put_u8(0);
            answer.put_i64(appended.base_offset.0);
            answer.put_i64(appended.log_append_time_ms);
            answer.put_i64(appended.log_start.0);
        }
        Err(refusal) => {
            answer.put_u8(1);
            answer.put_i16(refusal.code.code());
            answer.put_slice(refusal.why.as_deref().unwrap_or_default().as_bytes());
        }
    }
    answer
}

/// An answer that is none says nothing: the batch may have been written.
fn read(mut answer: Bytes) -> Result<Appended, Refusal> {
    let unknown = |_| Refusal::from(ResponseError::RequestTimedOut);
    match answer.try_get_u8().map_err(unknown)? {
        0 => Ok(Appended {
            base_offset: Offset(answer.try_get_i64().map_err(unknown)?),
            log_append_time_ms: answer.try_get_i64().map_err(unknown)?,
            log_start: Offset(answer.try_get_i64().map_err(unknown)?),
            duplicate: false,
        }),
        _ => {
            let code = answer.try_get_i16().map_err(unknown)?;
            let code = ResponseError::try_from_code(code).unwrap_or(ResponseError::RequestTimedOut);
            let why = String::from_utf8_lossy(&answer).into_owned();
            Err(Refusal { code, leader: None, why: (!why.is_empty()).then_some(why) })
        }
    }
}

/// The task `forwarded produces[N]`: appends what another node forwards, to each partition in the order in which it came, and answers.
/// An append may wait, for room to open its batch or for its partition: only what is for the same partition stands behind it.
pub async fn serve<B: Backend>(
    context: Arc<Context<B>>,
    asks: Asks<B>,
    mut inbox: Receiver<B, (Moment, Question)>,
) {
    const INBOX: Deadline = Deadline::Unbounded("other nodes forward what their clients send");
    let mut lanes = Lanes::default();
    let mut working: FuturesUnordered<BoxFuture<'static, Step<B>>> = FuturesUnordered::new();
    loop {
        let next = std::pin::pin!(inbox.receive(INBOX));
        let step = if working.is_empty() {
            Either::Left(next.await)
        } else if working.len() + lanes.waiting >= limits::PRODUCES_FORWARDED_AT_ONCE {
            Either::Right(working.next().await)
        } else {
            match select(next, working.next()).await {
                Either::Left((came, _)) => Either::Left(came),
                Either::Right((step, _)) => Either::Right(step),
            }
        };
        match step {
            Either::Left(Ok((came, question))) => match Produce::read(question, came) {
                Ok(produce) => match lanes.came(produce.partition, produce) {
                    Came::First(first) => working.push(append(context.clone(), first)),
                    Came::Behind => {}
                    Came::NoPlace(produce) => {
                        tracing::debug!(partition = %produce.partition, "a forwarded produce finds too many before it, and is not appended");
                        let why = Some(
                            "too many forwarded batches wait for the partition; nothing was written"
                                .to_owned(),
                        );
                        let refused = Refusal { code: ResponseError::RequestTimedOut, leader: None, why };
                        asks.answer(&produce.question, &write(&Err(refused)));
                    }
                },
                Err(question) => {
                    asks.answer(&question, &write(&Err(ResponseError::InvalidRequest.into())));
                }
            },
            Either::Left(Err(_)) => return,
            Either::Right(Some(Some((mut produce, appended)))) => {
                // It stands in its partition's line, or nowhere: what it came in makes room for what the same node sends next.
                (produce.records, produce.question.body) = (Bytes::new(), Bytes::new());
                if let Some(next) = lanes.appended(produce.partition) {
                    working.push(append(context.clone(), next));
                }
                working.push(answer(context.clone(), asks.clone(), produce, appended));
            }
            Either::Right(Some(None) | None) => {}
        }
    }
}

/// Where a batch stands that came.
#[derive(Debug, PartialEq)]
enum Came<T> {
    /// Nothing stands before it.
    First(T),
    Behind,
    /// Behind too many.
    NoPlace(T),
}

/// What waits for its partition, behind what is being appended to it.
struct Lanes<T> {
    of: BTreeMap<PartitionId, VecDeque<T>>,
    waiting: usize,
}

impl<T> Default for Lanes<T> {
    fn default() -> Lanes<T> {
        Lanes { of: BTreeMap::new(), waiting: 0 }
    }
}

impl<T> Lanes<T> {
    fn came(&mut self, partition: PartitionId, one: T) -> Came<T> {
        match self.of.entry(partition) {
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                Came::First(one)
            }
            Entry::Occupied(lane) if lane.get().len() >= limits::PRODUCES_FORWARDED_BEHIND_MAX => {
                Came::NoPlace(one)
            }
            Entry::Occupied(mut lane) => {
                lane.get_mut().push_back(one);
                self.waiting += 1;
                Came::Behind
            }
        }
    }

    /// What was being appended to the partition has come to its place, or to none: the next one.
    fn appended(&mut self, partition: PartitionId) -> Option<T> {
        let next = self.of.get_mut(&partition)?.pop_front();
        match next {
            Some(_) => self.waiting -= 1,
            None => drop(self.of.remove(&partition)),
        }
        next
    }
}

/// What has come to its place in its partition, or to none; `None`: one was answered.
type Step<B> = Option<(Produce, Result<InLine<B>, Refusal>)>;

/// A batch that came from another node.
struct Produce {
    question: Question,
    partition: PartitionId,
    version: i16,
    acks: Acks,
    behind_refused_first: bool,
    deadline: Deadline,
    records: Bytes,
}

impl Produce {
    /// The question comes back where it is none.
    fn read(question: Question, came: Moment) -> Result<Produce, Question> {
        let mut body = question.body.clone();
        if body.len() < HEAD_BYTES {
            return Err(question);
        }
        let topic = TopicId(Uuid::from_u128(body.get_u128()));
        let (index, version) = (body.get_i32(), body.get_i16());
        let acks = match body.get_i8() {
            0 => Acks::None,
            1 => Acks::Leader,
            _ => Acks::All,
        };
        let behind_refused_first = body.get_u8() != 0;
        let deadline = Deadline::At(came + Duration::from_millis(body.get_u32().into()));
        let partition = PartitionId { topic, index };
        Ok(Produce { question, partition, version, acks, behind_refused_first, deadline, records: body })
    }
}

fn append<B: Backend>(context: Arc<Context<B>>, produce: Produce) -> BoxFuture<'static, Step<B>> {
    Box::pin(async move {
        let appended = place(&context, &produce).await;
        Some((produce, appended))
    })
}

async fn place<B: Backend>(context: &Context<B>, produce: &Produce) -> Result<InLine<B>, Refusal> {
    let Produce { partition, version, acks, behind_refused_first, deadline, .. } = *produce;
    let records = Some(produce.records.clone());
    let data = PartitionProduceData::default().with_index(partition.index).with_records(records);
    let routing = RoutingView::now(context);
    let topic = routing.topic(TopicKey::Id(partition.topic))?;
    let told = (acks == Acks::None).then(|| Arc::new(Nobody) as Arc<dyn Unacknowledged>);
    let wanted = Wanted { acks, told, behind_refused_first };
    appending::append(context, &routing, topic, &data, version, wanted, deadline).await
}

fn answer<B: Backend>(
    context: Arc<Context<B>>,
    asks: Asks<B>,
    produce: Produce,
    appended: Result<InLine<B>, Refusal>,
) -> BoxFuture<'static, Step<B>> {
    Box::pin(async move {
        let outcome = match appended {
            Ok(in_line) => in_line.wait(&context).await,
            Err(refusal) => Err(refusal),
        };
        asks.answer(&produce.question, &write(&outcome));
        None
    })
}

/// Whoever asked for no acknowledgement is at another node.
struct Nobody;

impl Unacknowledged for Nobody {
    fn failed(&self, error: &crate::partition::AppendError) {
        tracing::debug!(%error, "a forwarded produce with acks=0 failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_stands_behind_those_of_its_partition_alone() {
        let partition = |index| PartitionId { topic: TopicId(Uuid::from_u128(1)), index };
        let mut lanes = Lanes::default();
        assert_eq!(lanes.came(partition(0), "a"), Came::First("a"));
        assert_eq!(lanes.came(partition(0), "b"), Came::Behind);
        assert_eq!(lanes.came(partition(0), "c"), Came::Behind);
        assert_eq!((lanes.came(partition(1), "d"), lanes.waiting), (Came::First("d"), 2));
        assert_eq!(lanes.appended(partition(1)), None);
        assert_eq!(lanes.came(partition(1), "e"), Came::First("e"), "nothing stands before it any more");
        let order =
            [lanes.appended(partition(0)), lanes.appended(partition(0)), lanes.appended(partition(0))];
        assert_eq!((order, lanes.waiting), ([Some("b"), Some("c"), None], 0));
        assert_eq!(lanes.came(partition(0), "f"), Came::First("f"));
        (0..limits::PRODUCES_FORWARDED_BEHIND_MAX)
            .for_each(|_| assert_eq!(lanes.came(partition(0), "g"), Came::Behind));
        assert_eq!(lanes.came(partition(0), "h"), Came::NoPlace("h"));
        assert_eq!((lanes.appended(partition(0)), lanes.came(partition(0), "i")), (Some("g"), Came::Behind));
    }

    #[test]
    fn outcomes_come_back_as_they_were_and_damage_says_nothing() {
        let appended = Appended {
            base_offset: Offset(7),
            log_start: Offset(3),
            log_append_time_ms: -1,
            duplicate: false,
        };
        let back = |outcome| read(write(&outcome).freeze());
        assert_eq!(back(Ok(appended)).ok(), Some(appended));
        let refusal = |code, why: Option<&str>| Refusal { code, leader: None, why: why.map(str::to_owned) };
        for why in [None, Some("it is full")] {
            let found = back(Err(refusal(ResponseError::KafkaStorageError, why))).err().unwrap();
            assert_eq!((found.code, found.why.as_deref()), (ResponseError::KafkaStorageError, why));
        }
        for damaged in [&[][..], &[0, 1, 2], &[1, 2]] {
            let found = read(Bytes::from_static(damaged)).err().unwrap();
            assert_eq!(found.code, ResponseError::RequestTimedOut);
        }
    }
}
