//! Well-behaved clients with little patience: small requests of every kind, four times a second, each of which should
//! be served within seconds whatever others do.

use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::{ApiVersionsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, numbers};
use super::connection::{CallError, Terms};
use super::fetcher::{self, FetchTerms};
use super::lines::Lines;
use super::lookups;
use super::producer::{produce_request, settles};
use super::writer::Writer;
use crate::history::wire_name;
use crate::history::{AckMode, LookupQuery, Place, Trade};
use crate::scenario::Compression;
use crate::streams::Stream;

const EVERY: Duration = Duration::from_millis(250);
/// For each request, and for the connection.
pub(super) const WITHIN: Duration = Duration::from_secs(5);
/// One in so many rounds begins with a connection of its own.
const FRESH: u64 = 6;

pub(super) fn start<B: Backend>(client: Client<B>, number: u32, stream: Stream) {
    let probe = Probe {
        line: Lines::new(&client).connecting_within(WITHIN),
        writer: Writer::new(&client, numbers::PROBES + number, false),
        client: client.clone(),
        stream,
    };
    client.begin("probe", probe.run());
}

struct Probe<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    writer: Writer<B>,
    stream: Stream,
}

impl<B: Backend> Probe<B> {
    async fn run(mut self) {
        while self.client.next_turn(EVERY).await {
            if self.stream.below(FRESH) == 0 {
                self.line.close_all();
            }
            if self.round().await.is_err() {
                self.line.close_all();
            }
        }
    }

    async fn round(&mut self) -> Result<(), CallError> {
        let places = self.client.field.places.clone();
        let index = self.stream.below(places.len() as u64) as usize;
        let place = &places[index];
        let versions = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("chronik-sim"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        self.line.call(Trade::Look, &versions, 3, WITHIN, |_| true).await?;
        self.metadata(place).await?;
        self.produce(place).await?;
        lookups::look_up(&self.client, &mut self.line, place, LookupQuery::Latest, WITHIN).await?;
        let terms = FetchTerms { wait: Duration::ZERO, partition_bytes: 4 << 10, ..FetchTerms::soon() };
        let request = fetcher::request(&places, &[(index, 0)], terms, None, |_| None);
        let sent = self.client.now();
        // A disk that stands still may use up what a broker gives a read.
        let asked = terms.terms();
        let version = terms.version;
        let answer = self.line.call_leader(place, Trade::Consume, &request, version, asked, |_| true).await?;
        let fetched = fetcher::sort_out(answer, &places, &[(index, 0)], None);
        fetcher::complain(&self.client, &mut self.line, &fetched, &places, sent);
        Ok(())
    }

    async fn metadata(&mut self, place: &Place) -> Result<(), CallError> {
        let name = TopicName(StrBytes::from_string(wire_name(&place.topic).to_owned()));
        let topic = MetadataRequestTopic::default().with_name(Some(name));
        let request =
            MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let sent = self.client.now();
        let answer = self.line.call(Trade::Look, &request, 9, WITHIN, |_| true).await?;
        for topic in answer.topics {
            self.client.complain(Trade::Look, Some(place), topic.error_code, sent);
        }
        Ok(())
    }

    async fn produce(&mut self, place: &Place) -> Result<(), CallError> {
        self.line.leader_connected(place).await?;
        let batch = self.writer.begin(place, vec![64], Compression::None);
        let timeout_ms = i32::try_from(WITHIN.as_millis()).unwrap_or(5_000);
        let request = produce_request(vec![(place.clone(), batch.encode(None))], AckMode::All, timeout_ms);
        let sent = self.client.now();
        let terms = Terms::within(WITHIN);
        let answer = self.line.call_leader(place, Trade::Produce, &request, 9, terms, settles).await;
        match answer.as_ref().map_err(|_| None).and_then(|answer| batch.told(answer)) {
            Ok(base) => self.writer.acked(&batch, Some(base)),
            Err(error) => {
                if let Some(error) = error {
                    self.line.told_of(Trade::Produce, place, error.code(), sent);
                }
                self.writer.unknown(&batch);
                self.writer.given_up(&batch);
            }
        }
        answer.map(|_| ())
    }
}
