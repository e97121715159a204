//! AddRaftVoter and RemoveRaftVoter: who votes in the metadata group.

use std::time::Duration;

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, ApiKey, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
};
use uuid::Uuid;

use super::authorization::{Needs, Operation};
use super::changes::{Refusal, code_and_message, patience};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::context::Context;
use crate::error_codes;
use crate::ids::{BrokerId, StorageId};
use crate::limits;
use crate::metadata::{VoterChange, VoterWish};
use crate::wire::StrBytes;
use crate::wire::shape::{Bounds, I32, Kind, Shape, UUID, always, plain};

/// AddRaftVoter, key 80 (KIP-853). Where a voter listens, `cluster.peers` says.
impl Api for AddRaftVoterRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::AddRaftVoter,
        versions: Versions::of(0, 0),
        bounds: Bounds::of_resources(&ADD),
        needs: Needs::OnCluster(Operation::Alter),
    };
    type Response = AddRaftVoterResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<AddRaftVoterResponse> {
        let asked = Asked { voter: self.voter_id, directory: self.voter_directory_id, wish: VoterWish::Add };
        let timeout = patience(self.timeout_ms);
        let outcome = change(&call.context, self.cluster_id, asked, timeout).await;
        let (code, message) = code_and_message(outcome);
        AddRaftVoterResponse::default().with_error_code(code).with_error_message(message).into()
    }

    fn errors(response: &AddRaftVoterResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

/// RemoveRaftVoter, key 81 (KIP-853).
impl Api for RemoveRaftVoterRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::RemoveRaftVoter,
        versions: Versions::of(0, 0),
        bounds: Bounds::of_resources(&REMOVE),
        needs: Needs::OnCluster(Operation::Alter),
    };
    type Response = RemoveRaftVoterResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<RemoveRaftVoterResponse> {
        let (voter, directory) = (self.voter_id, self.voter_directory_id);
        let asked = Asked { voter, directory, wish: VoterWish::Remove };
        let outcome = change(&call.context, self.cluster_id, asked, limits::PROPOSE_DEADLINE).await;
        let (code, message) = code_and_message(outcome);
        RemoveRaftVoterResponse::default().with_error_code(code).with_error_message(message).into()
    }

    fn errors(response: &RemoveRaftVoterResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

static ADD: Shape = plain(&[
    always(Kind::Text),
    always(I32),
    always(I32),
    always(UUID),
    always(Kind::Many(&Kind::Struct(&LISTENER))),
]);
static LISTENER: Shape = plain(&[always(Kind::Text), always(Kind::Text), always(Kind::Fixed(2))]);
static REMOVE: Shape = plain(&[always(Kind::Text), always(I32), always(UUID)]);

struct Asked {
    voter: i32,
    directory: Uuid,
    wish: VoterWish,
}

async fn change<B: Backend>(
    context: &Context<B>,
    cluster_id: Option<StrBytes>,
    asked: Asked,
    timeout: Duration,
) -> Result<(), Refusal> {
    let change = checked(&context.metadata.shown().cluster_id, cluster_id.as_deref(), &asked)?;
    let deadline = Deadline::after(&context.backend, timeout);
    let changed = context.metadata.change_voters(change, deadline).await;
    changed.map_err(|error| (error_codes::voter(&error), error.to_string()))
}

fn checked(cluster_id: &str, said: Option<&str>, asked: &Asked) -> Result<VoterChange, Refusal> {
    if said.is_some_and(|said| said != cluster_id) {
        let why = format!("This is cluster {cluster_id}.");
        return Err((ResponseError::InconsistentClusterId, why));
    }
    // Of a voter that was unregistered no directory is known any more.
    let needs_directory = asked.wish == VoterWish::Add;
    if asked.voter < 0 || needs_directory && asked.directory.is_nil() {
        let why = "The request names no voter: an id of 0 or more and a directory id are needed.";
        return Err((ResponseError::InvalidRequest, why.to_owned()));
    }
    Ok(VoterChange { wish: asked.wish, node: BrokerId(asked.voter), directory: StorageId(asked.directory) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cluster_and_what_names_no_voter_are_refused() {
        let wished = |wish, said: Option<&str>, voter, directory: u128| {
            let asked = Asked { voter, directory: Uuid::from_u128(directory), wish };
            checked("ours", said, &asked).map(|change| change.node.0).map_err(|(code, _)| code)
        };
        let code = |said, voter, directory| wished(VoterWish::Add, said, voter, directory);
        assert_eq!(code(None, 2, 7), Ok(2));
        assert_eq!(code(Some("ours"), 2, 7), Ok(2));
        assert_eq!(code(Some("theirs"), 2, 7), Err(ResponseError::InconsistentClusterId));
        assert_eq!(code(None, -1, 7), Err(ResponseError::InvalidRequest));
        assert_eq!(code(None, 2, 0), Err(ResponseError::InvalidRequest));
        assert_eq!(wished(VoterWish::Remove, None, 2, 0), Ok(2), "as one is described that was unregistered");
    }
}
