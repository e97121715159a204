//! The task `metadata lateness`: finds out how far the metadata are where they are led, for all who want to know.
//!
//! One question is on its way at a time, however many clients ask for topics that there are not. Whoever comes meanwhile waits for the
//! next one: an answer to a question that was asked before may be too old.

use bytes::Buf;
use io_backend::{Backend, Deadline, Receiver, Replier};

use super::MetadataHandle;
use crate::limits;
use crate::peers::asks::{Asks, Subject};

/// Tells who wants to know, or nobody where nobody is to be asked.
pub(super) async fn find_out<B: Backend>(
    metadata: MetadataHandle<B>,
    asks: Asks<B>,
    mut inbox: Receiver<B, Replier<u64>>,
) {
    const INBOX: Deadline =
        Deadline::Unbounded("somebody asks for a topic that is not known here, or nobody does");
    let mut all = Vec::new();
    while let Ok(first) = inbox.receive(INBOX).await {
        all.push(first);
        inbox.try_receive_many(&mut all, limits::LATENESS_WANTED_MAX);
        let index = ask(&metadata, &asks).await;
        for wanted in all.drain(..) {
            if let Some(index) = index {
                wanted.answer(index);
            }
        }
    }
}

/// `None` where nobody leads, or does not answer soon.
async fn ask<B: Backend>(metadata: &MetadataHandle<B>, asks: &Asks<B>) -> Option<u64> {
    let leader = metadata.members.get().leader?;
    if leader == metadata.node {
        return Some(metadata.image().index);
    }
    let soon = Deadline::after(&metadata.backend, limits::CATCH_UP_DEADLINE);
    asks.ask(leader, Subject::Index, &[], soon).await.ok()?.try_get_u64().ok()
}
