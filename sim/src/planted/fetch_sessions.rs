//! A network on which answers in fetch sessions tell of nothing after the first: what a broker looks like from outside that
//! believes that its client knows already.

use std::collections::BTreeSet;

use super::answers::Answers;
use super::empty_fetches::{FETCH, rewritten};
use crate::world::SimBackend;

pub(super) fn plant(backend: &SimBackend) -> SimBackend {
    backend.rewriting(|| {
        // Sessions whose first answer, which tells of everything, has been given on this connection.
        let mut begun = BTreeSet::new();
        Box::new(Answers::to(FETCH, move |answer, version| {
            rewritten(answer, version, |response| {
                if response.session_id == 0 || begun.insert(response.session_id) {
                    return;
                }
                response.responses.clear();
            })
        }))
    })
}
