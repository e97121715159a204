//! A flood of producer ids: each is asked for, used for one small batch and never again.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use io_backend::Backend;
use kafka_protocol::messages::InitProducerIdResponse;
use kafka_protocol::protocol::Decodable;

use super::super::client::{Client, numbers};
use super::super::connection::frame;
use super::super::producer::{init_producer_id, produce_request};
use super::super::writer::Writer;
use super::raw::PAUSE;
use super::raw::Raw;
use crate::history::{AckMode, At};
use crate::scenario::Compression;
use crate::streams::Stream;

/// Ids that are asked for, and then used, at a time.
const AT_ONCE: i32 = 50;
const ROUND_EVERY: Duration = Duration::from_millis(200);
const INIT: i16 = 4;

pub(super) fn start<B: Backend>(client: Client<B>, index: u32, window: (At, At), stream: Stream) {
    let flooder = Flooder {
        writer: Writer::new(&client, numbers::FLOODERS + index, true),
        client: client.clone(),
        stream,
    };
    client.begin("hostile", flooder.run(window));
}

struct Flooder<B: Backend> {
    client: Client<B>,
    writer: Writer<B>,
    stream: Stream,
}

impl<B: Backend> Flooder<B> {
    async fn run(mut self, (from, until): (At, At)) {
        let backend = self.client.backend.clone();
        backend.sleep(Duration::from_nanos(from.saturating_sub(self.client.now()))).await;
        while self.client.now() < until {
            if let Ok(mut raw) = Raw::connect(&self.client).await {
                while self.client.now() < until && self.round(&mut raw, until).await.is_some() {
                    backend.sleep(ROUND_EVERY).await;
                }
            }
            backend.sleep(PAUSE).await;
        }
    }

    async fn round(&mut self, raw: &mut Raw<B>, until: At) -> Option<()> {
        let mut asked = BytesMut::new();
        for number in 0..AT_ONCE {
            frame(&self.client.name, number, &init_producer_id(), INIT, &mut asked).ok()?;
        }
        raw.say(&asked, until).await.ok()?;
        let places = self.client.field.places.clone();
        let mut batches = BytesMut::new();
        let mut sent = Vec::new();
        for number in 0..AT_ONCE {
            let mut answer = raw.answer(until).await?;
            // Correlation and the tagged fields of a flexible header.
            if answer.len() < 5 {
                return None;
            }
            answer.advance(5);
            let answer = InitProducerIdResponse::decode(&mut answer, INIT).ok()?;
            if answer.error_code != 0 {
                continue;
            }
            let place = &places[self.stream.below(places.len() as u64) as usize];
            let batch = self.writer.begin(place, vec![32], Compression::None);
            let stamp = (answer.producer_id.0, answer.producer_epoch, 0);
            let request =
                produce_request(vec![(place.clone(), batch.encode(Some(stamp)))], AckMode::All, 5_000);
            frame(&self.client.name, number, &request, 9, &mut batches).ok()?;
            self.writer.unknown(&batch);
            self.writer.given_up(&batch);
            sent.push(batch);
        }
        self.client.field.notes.write().add("producer ids flooded", sent.len() as u64);
        raw.say(&batches, until).await.ok()?;
        for _ in sent {
            raw.answer(until).await?;
        }
        Some(())
    }
}
