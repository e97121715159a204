//! For tests: the server of a node on a real loopback socket, above a metadata group in memory and without
//! any partition.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use io_backend::real::{DiskChoice, RealBackend};
use io_backend::{Backend, Deadline, Listener, Network, Published, stream};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use uuid::Uuid;

use crate::api;
use crate::budget::Budget;
use crate::config::Config;
use crate::context::{ClientLines, Context};
use crate::coordinator::coordinators::Coordinators;
use crate::fetch_sessions::FetchSessions;
use crate::identity::Identity;
use crate::ids::{BrokerId, Incarnation, IncarnationId, StorageId};
use crate::journal::OpenedJournal;
use crate::metadata::{
    self, BrokerRegistration, CLIENT_LISTENER, Changes, Endpoint, MetadataCommand, MetadataContext,
    ProducerIds,
};
use crate::metrics::{Metrics, RequestMetrics};
use crate::node::Node;
use crate::partition::FirstRefused;
use crate::parts::{Admission, Admit, Parts};
use crate::raft::memory_journal::MemoryJournal;
use crate::replicas::Replicas;
use crate::stall::StorageHealth;
use crate::stall::capacities::Capacities;

type Stream = stream::Stream<RealBackend>;

pub struct TestNode {
    pub context: Arc<Context<RealBackend>>,
    pub stop: Published<bool>,
    pub address: String,
    pub served: Published<bool>,
}

struct AdmitAll;

impl Admission for AdmitAll {
    fn admit(&self, _: crate::ids::PartitionId, _: usize) -> Admit {
        Admit::Now
    }
}

/// Runs `test` against a node with this configuration.
pub fn with_node<T>(configure: impl FnOnce(&mut Config), test: impl AsyncFnOnce(TestNode) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (backend, _) = RealBackend::start(DiskChoice::Threads, home.path()).unwrap();
        let mut config = Config { data_dir: home.path().to_owned(), ..Config::default() };
        configure(&mut config);
        test(start(backend, config).await).await
    })
}

async fn start(backend: RealBackend, config: Config) -> TestNode {
    let identity = Identity {
        storage: StorageId(Uuid::from_u128(1)),
        node: BrokerId(1),
        cluster_id: "cluster".into(),
        incarnation: Incarnation(1),
        incarnation_id: IncarnationId(Uuid::from_u128(1)),
    };
    let config = Arc::new(config);
    let opened =
        OpenedJournal { journal: Arc::new(MemoryJournal::default()), entries: Vec::new(), torn_tail: None };
    let metadata = MetadataContext {
        backend: backend.clone(),
        config: config.clone(),
        metrics: Arc::default(),
        identity: identity.clone(),
        open_journal: Box::new(|_| Box::pin(async { Ok(opened) })),
    };
    let soon = Deadline::after(&backend, Duration::from_secs(30));
    let metadata = metadata::open(metadata, soon).await.unwrap().start(None, soon).await.unwrap().metadata;
    let registration = BrokerRegistration {
        id: identity.node,
        incarnation: identity.incarnation,
        incarnation_id: Some(IncarnationId(Uuid::from_u128(1))),
        previous_epoch: None,
        storage: identity.storage,
        listeners: vec![Endpoint { name: CLIENT_LISTENER.into(), host: "localhost".into(), port: 9092 }],
        rack: None,
        reads: crate::formats::METADATA,
    };
    metadata.propose(MetadataCommand::RegisterBroker(registration), soon).await.unwrap();
    let listener = backend.network().listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address();
    let stop = Published::new("stop", false);
    let (metrics, admission) = (Arc::<Metrics>::default(), Arc::new(AdmitAll));
    let changes =
        Changes::new(&metadata, metadata.proposals().propose, admission.clone(), Capacities::default());
    let context = Arc::new(Context {
        backend: backend.clone(),
        budget: Budget::new(&config, &metrics),
        fetch_sessions: FetchSessions::new(&config.server, &metrics),
        config,
        metrics,
        requests: RequestMetrics::new(api::names::<RealBackend>()),
        node: identity.node,
        incarnation: identity.incarnation,
        metadata,
        producer_ids: ProducerIds::new(identity.node, changes.clone()),
        changes,
        replicas: Replicas::default(),
        coordinators: Coordinators::default(),
        health: StorageHealth::default(),
        admission,
        creating: Arc::default(),
        first_refused: FirstRefused::default(),
        forward_produce: None,
        lines: ClientLines::default(),
        stopping: stop.clone(),
    });
    let served = Published::new("served", false);
    let (serving, told, done) = (context.clone(), stop.clone(), served.clone());
    backend.spawn("kafka listener", async move {
        super::serve(listener, serving, told).await;
        done.publish(true);
    });
    TestNode { context, stop, address, served }
}

/// Runs `test` against a whole node with a journal and partitions of its own.
pub fn with_whole_node<T>(
    configure: impl FnOnce(&mut Config),
    test: impl AsyncFnOnce(&TestNode, Node<RealBackend>) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (backend, _) = RealBackend::start(DiskChoice::Threads, home.path()).unwrap();
        let mut config = Config { data_dir: home.path().to_owned(), ..Config::default() };
        for address in [&mut config.listen, &mut config.admin, &mut config.cluster] {
            *address = "127.0.0.1:0".into();
        }
        configure(&mut config);
        let node = Node::start(backend, Parts::production(), config).await.unwrap();
        let door = TestNode {
            context: node.context().clone(),
            stop: Published::new("unused", false),
            address: node.kafka_address().to_owned(),
            served: Published::new("unused", false),
        };
        test(&door, node).await
    })
}

/// A client that says and hears exactly what the test wants.
pub struct Client {
    backend: RealBackend,
    stream: Stream,
    input: BytesMut,
}

impl TestNode {
    pub fn backend(&self) -> &RealBackend {
        &self.context.backend
    }

    pub async fn connect(&self) -> Client {
        let soon = Deadline::after(self.backend(), Duration::from_secs(30));
        let stream = self.backend().network().connect(&self.address, soon).await.unwrap();
        Client { backend: self.backend().clone(), stream, input: BytesMut::new() }
    }
}

impl Client {
    fn soon(&self) -> Deadline {
        Deadline::after(&self.backend, Duration::from_secs(30))
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let deadline = self.soon();
        stream::write_all(&self.backend, &mut self.stream, bytes, "test", deadline).await.unwrap();
    }

    pub async fn send(&mut self, correlation: i32, key: ApiKey, version: i16, request: RequestKind) {
        self.send_bytes(&framed(correlation, key, version, request)).await;
    }

    /// The next answer without its size; `None` when the node has closed the connection.
    pub async fn answer(&mut self) -> Option<Bytes> {
        loop {
            if let Some(size) = self.input.first_chunk::<4>() {
                let size = u32::from_be_bytes(*size) as usize;
                if self.input.len() >= 4 + size {
                    self.input.advance(4);
                    return Some(self.input.split_to(size).freeze());
                }
            }
            let deadline = self.soon();
            let read = stream::read(&self.backend, &mut self.stream, &mut self.input, "test", deadline).await;
            match read {
                Ok(1..) => {}
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    panic!("neither an answer came nor the end: {error}")
                }
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// The next answer's correlation id and message.
    pub async fn message(&mut self, key: ApiKey, version: i16) -> (i32, ResponseKind) {
        let mut answer = self.answer().await.unwrap();
        let header = ResponseHeader::decode(&mut answer, key.response_header_version(version)).unwrap();
        (header.correlation_id, ResponseKind::decode(key, &mut answer, version).unwrap())
    }
}

/// A request as it goes over the wire.
pub fn framed(correlation: i32, key: ApiKey, version: i16, request: RequestKind) -> Vec<u8> {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    framed_body(correlation, key, version, &body)
}

pub fn framed_body(correlation: i32, key: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("test")))
        .encode(&mut bytes, key.request_header_version(version))
        .unwrap();
    bytes.extend_from_slice(body);
    let size = bytes.len() as i32 - 4;
    bytes[..4].copy_from_slice(&size.to_be_bytes());
    bytes.to_vec()
}
