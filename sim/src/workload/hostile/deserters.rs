//! Clients that send the largest batches they can and hang up at once: whatever a broker keeps of them, nobody waits for.

use std::time::Duration;

use bytes::BytesMut;
use io_backend::Backend;

use super::super::batch::{HEADER_BYTES, RECORD_BYTES_MAX};
use super::super::client::{Client, numbers};
use super::super::connection::frame;
use super::super::producer::produce_request;
use super::super::shape::Limits;
use super::super::writer::Writer;
use super::raw::Raw;
use crate::history::{AckMode, At};
use crate::scenario::Compression;
use crate::streams::Stream;

const EVERY: Duration = Duration::from_millis(100);
/// Long enough for what was sent to be taken, not for it to be written to a slow disk.
const STAY: Duration = Duration::from_millis(5);
const REQUESTS: i32 = 4;

pub(super) fn start<B: Backend>(
    client: Client<B>,
    index: u32,
    limits: Limits,
    acks: AckMode,
    window: (At, At),
    stream: Stream,
) {
    let deserter = Deserter {
        writer: Writer::new(&client, numbers::DESERTERS + index, true),
        client: client.clone(),
        limits,
        acks,
        stream,
    };
    client.begin("hostile", deserter.run(window));
}

struct Deserter<B: Backend> {
    client: Client<B>,
    writer: Writer<B>,
    limits: Limits,
    acks: AckMode,
    stream: Stream,
}

impl<B: Backend> Deserter<B> {
    async fn run(mut self, (from, until): (At, At)) {
        let backend = self.client.backend.clone();
        backend.sleep(Duration::from_nanos(from.saturating_sub(self.client.now()))).await;
        while self.client.now() < until {
            if let Ok(mut raw) = Raw::connect(&self.client).await {
                let requests = self.requests();
                if raw.say(&requests, until).await.is_ok() {
                    backend.sleep(STAY).await;
                    self.client.field.notes.write().count("large requests deserted");
                }
            }
            backend.sleep(EVERY).await;
        }
    }

    fn requests(&mut self) -> BytesMut {
        let places = self.client.field.places.clone();
        let mut bytes = BytesMut::new();
        for number in 0..REQUESTS {
            let place = &places[self.stream.below(places.len() as u64) as usize];
            let size = self.limits.batch_bytes - HEADER_BYTES - RECORD_BYTES_MAX;
            let batch = self.writer.begin(place, vec![size], Compression::None);
            let request = produce_request(vec![(place.clone(), batch.encode(None))], self.acks, 30_000);
            // What cannot be encoded is not said.
            let _ = frame(&self.client.name, number, &request, 9, &mut bytes);
            self.writer.unknown(&batch);
            self.writer.given_up(&batch);
        }
        bytes
    }
}
