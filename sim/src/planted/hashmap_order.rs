//! A message whose bytes follow the order of a std hash map: the classic way to lose determinism without noticing.
//!
//! Not a bug of the broker but one of being simulated: nothing that a client could see is wrong. A node that has
//! this part asks itself for its versions once, under a client id that lists names as the map gives them.

use std::hash::RandomState;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use broker::parts::Parts;
use bytes::{BufMut, BytesMut};
use io_backend::stream::write_all;
use io_backend::{Backend, Clock, Deadline, Network};

use crate::world::SimBackend;

const NAMES: [&str; 12] =
    ["ada", "ben", "cleo", "dan", "eve", "finn", "gus", "hana", "ivo", "jana", "kim", "lea"];

static STATE: Mutex<Option<RandomState>> = Mutex::new(None);

/// Inside a world every randomness is the world's, that of hash maps too: this one comes from outside.
pub(super) fn stir() {
    *STATE.lock().unwrap_or_else(PoisonError::into_inner) = Some(RandomState::new());
}

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    let inner = std::mem::replace(&mut parts.journal, Box::new(broker::journal::open));
    parts.journal = Box::new(move |context| {
        let backend = context.backend.clone();
        let own = backend.clone();
        let _detached = backend.spawn("hashmap-order", async move { greet(&own).await });
        inner(context)
    });
}

#[allow(clippy::disallowed_types, reason = "the order of this map is what is planted")]
fn names() -> String {
    let state = STATE.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default();
    let mut map = std::collections::HashMap::with_hasher(state);
    map.extend(NAMES.iter().map(|name| (*name, ())));
    map.into_keys().collect::<Vec<_>>().join(",")
}

async fn greet(backend: &SimBackend) {
    backend.sleep(Duration::from_secs(1)).await;
    let deadline = Deadline::after(backend, Duration::from_secs(5));
    let address = format!("{}:9092", backend.process().host.name);
    let Ok(mut stream) = backend.network().connect(&address, deadline).await else { return };
    let names = names();
    let mut body = BytesMut::new();
    // ApiVersions, version 0, correlation id 1.
    body.put_i16(18);
    body.put_i16(0);
    body.put_i32(1);
    body.put_i16(i16::try_from(names.len()).unwrap_or_default());
    body.put_slice(names.as_bytes());
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(body.len()).unwrap_or_default());
    frame.extend_from_slice(&body);
    let _ = write_all(backend, &mut stream, &frame, "greeting", deadline).await;
    backend.sleep(Duration::from_secs(1)).await;
}
