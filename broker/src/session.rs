//! One client's connection, as those who work for it see it: who is at its other end, and how it is told of its end.

use std::sync::{Arc, OnceLock};

mod control;

pub use control::{Closing, Control};

/// Kafka's principal of who has not said who he is.
const ANONYMOUS: &str = "User:ANONYMOUS";

/// What a handler is told of the client that asks. A request keeps the session as it was when it came.
#[derive(Clone, Debug)]
pub struct Session {
    /// The client's address, `HOST:PORT`.
    pub peer: Arc<str>,
    /// Name of the listener that it came through.
    #[allow(
        dead_code,
        reason = "an authorizer asks for it, and there is none: who connects may do everything"
    )]
    pub listener: &'static str,
    /// Who the client is, as far as it has proved that: `User:NAME`.
    #[allow(
        dead_code,
        reason = "an authorizer asks for it, and there is none: who connects may do everything"
    )]
    pub principal: Arc<str>,
    /// What the client calls itself in the header of its requests; empty where it does not say.
    pub client_id: Arc<str>,
    /// Said in ApiVersions, for the connection as a whole.
    software: Arc<OnceLock<ClientSoftware>>,
    /// How the connection is told of its end, and what it tells of itself.
    pub control: Arc<Control>,
}

/// Which client library speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSoftware {
    /// `apache-kafka-java`.
    pub name: String,
    /// As the library writes it: `4.1.0`.
    pub version: String,
}

impl Session {
    /// A client of whom nothing is known but where it comes from.
    pub fn new(peer: Arc<str>, listener: &'static str, control: Arc<Control>) -> Session {
        Session {
            peer,
            listener,
            principal: ANONYMOUS.into(),
            client_id: "".into(),
            software: Arc::default(),
            control,
        }
    }

    /// The same client under another name.
    pub fn with_client_id(&self, client_id: &str) -> Session {
        Session { client_id: client_id.into(), ..self.clone() }
    }

    /// What the client said of its library in ApiVersions (KIP-511); `None` before that, or where it said nothing.
    #[allow(
        dead_code,
        reason = "who works for a client may ask; nobody here behaves differently for a library"
    )]
    pub fn software(&self) -> Option<&ClientSoftware> {
        self.software.get()
    }

    /// The first word counts: a client library does not change while it is connected.
    pub fn set_software(&self, software: ClientSoftware) {
        let _ = self.software.set(software);
    }
}
