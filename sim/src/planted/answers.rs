//! A network on which the answers to requests of one kind are others than those that the broker gives.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};

use crate::world::Rewrite;

/// What an answer of a version becomes; nothing where it stays as it is.
pub(crate) type Rewritten = Box<dyn FnMut(Bytes, i16) -> Option<Bytes> + Send + Sync>;

/// Of one connection.
pub(crate) struct Answers {
    key: i16,
    rewritten: Rewritten,
    /// Versions of requests that are not answered yet, by correlation id.
    asked: BTreeMap<i32, i16>,
    requests: BytesMut,
    answers: BytesMut,
}

impl Answers {
    pub(crate) fn to(
        key: i16,
        rewritten: impl FnMut(Bytes, i16) -> Option<Bytes> + Send + Sync + 'static,
    ) -> Answers {
        let rewritten: Rewritten = Box::new(rewritten);
        let (requests, answers) = (BytesMut::new(), BytesMut::new());
        Answers { key, rewritten, asked: BTreeMap::new(), requests, answers }
    }
}

impl Rewrite for Answers {
    fn received(&mut self, bytes: &[u8]) {
        self.requests.extend_from_slice(bytes);
        while let Some(mut request) = frame(&mut self.requests) {
            if request.len() < 8 {
                continue;
            }
            let (key, version, correlation) = (request.get_i16(), request.get_i16(), request.get_i32());
            if key == self.key {
                self.asked.insert(correlation, version);
            }
        }
    }

    fn written(&mut self, bytes: &[u8], out: &mut BytesMut) {
        self.answers.extend_from_slice(bytes);
        while let Some(answer) = frame(&mut self.answers) {
            let correlation = answer.get(..4).map(|mut id| id.get_i32()).unwrap_or_default();
            let version = self.asked.remove(&correlation);
            let rewritten =
                version.and_then(|version| (self.rewritten)(answer.clone(), version)).unwrap_or(answer);
            out.extend_from_slice(&u32::try_from(rewritten.len()).unwrap_or_default().to_be_bytes());
            out.extend_from_slice(&rewritten);
        }
    }
}

/// The next whole frame, without its length.
pub(super) fn frame(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(*buffer.first_chunk()?) as usize;
    if buffer.len() < 4 + length {
        return None;
    }
    buffer.advance(4);
    Some(buffer.split_to(length).freeze())
}
