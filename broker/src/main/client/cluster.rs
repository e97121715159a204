//! The cluster as a command sees it: which nodes there are, who leads what, and whom to ask.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::apis::Known;
use super::clock::{Deadline, pause};
use super::connection::Connection;
use super::failure::{Failure, check, without_controller};

/// Between one try and the next.
const PAUSE: Duration = Duration::from_millis(100);

/// A response, and who gave it.
pub struct Answer<M> {
    pub message: M,
    pub node: String,
}

pub struct Client {
    bootstrap: Vec<String>,
    pub deadline: Deadline,
    /// By address. One that failed is not kept.
    connections: BTreeMap<String, Connection>,
    /// Where nodes are, by their number, as was told last.
    nodes: BTreeMap<i32, String>,
    controller: Option<i32>,
    was_reached: bool,
}

/// A topic as the metadata have it, its partitions in their order.
#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    pub id: Uuid,
    pub is_internal: bool,
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug)]
pub struct Partition {
    pub partition: i32,
    /// None while nobody leads it.
    pub leader: Option<i32>,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub offline: Vec<i32>,
}

pub fn text(of: &str) -> StrBytes {
    StrBytes::from_string(of.to_owned())
}

pub fn topic_name(of: &str) -> TopicName {
    TopicName(text(of))
}

impl Client {
    pub fn new(bootstrap: &[String], timeout: Duration) -> Client {
        Client {
            bootstrap: bootstrap.to_vec(),
            deadline: Deadline::after(timeout),
            connections: BTreeMap::new(),
            nodes: BTreeMap::new(),
            controller: None,
            was_reached: false,
        }
    }

    /// What is left of it, as requests tell it to nodes that wait for others.
    pub fn timeout_ms(&self) -> i32 {
        i32::try_from(self.deadline.left().as_millis()).unwrap_or(i32::MAX)
    }

    /// Tries until it is done, refused for good, or the time is over.
    pub fn patiently<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Client) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        loop {
            match attempt(self) {
                Err(failure) if failure.is_passing() => self.wait_after(failure)?,
                done => return done,
            }
        }
    }

    /// Before something is tried again: who led may no longer.
    pub fn wait_after(&mut self, failure: Failure) -> Result<(), Failure> {
        if self.deadline.is_over() {
            return Err(Failure::TimedOut { waited: self.deadline.whole, last: Box::new(failure) });
        }
        self.settle();
        Ok(())
    }

    /// Gives the cluster a moment, and forgets who was in charge.
    pub fn settle(&mut self) {
        self.controller = None;
        pause(PAUSE.min(self.deadline.left()));
    }

    /// Asks whichever node answers.
    pub fn ask_any<R: Known>(&mut self, doing: &str, request: &R) -> Result<Answer<R::Response>, Failure> {
        let connection = self.any(doing)?;
        self.ask_at(&connection, doing, request)
    }

    /// Asks one node. Where it is has been told with the metadata.
    pub fn ask_node<R: Known>(
        &mut self,
        node: i32,
        doing: &str,
        request: &R,
    ) -> Result<Answer<R::Response>, Failure> {
        let address = self.reach(node, doing)?;
        self.ask_at(&address, doing, request)
    }

    /// Asks who changes the metadata.
    pub fn ask_controller<R: Known>(
        &mut self,
        doing: &str,
        request: &R,
    ) -> Result<Answer<R::Response>, Failure> {
        if self.controller.is_none() {
            self.metadata(doing, Some(&[]))?;
        }
        match self.controller {
            Some(node) => self.ask_node(node, doing, request),
            None => self.ask_any(doing, request).map_err(without_controller),
        }
    }

    /// Asks the node with a number that somebody has typed. A cluster that has a controller knows who is alive, and nobody else is waited for.
    pub fn ask_named<R: Known>(
        &mut self,
        node: i32,
        doing: &str,
        request: &R,
    ) -> Result<Answer<R::Response>, Failure> {
        if !self.nodes.contains_key(&node) {
            self.metadata(doing, Some(&[]))?;
            if self.has_controller() && !self.nodes.contains_key(&node) {
                let alive = self.nodes.keys().copied().collect();
                return Err(Failure::Absent { doing: doing.into(), node, alive });
            }
        }
        self.ask_node(node, doing, request)
    }

    /// Whether the metadata that were told last name one: what they say is as old as the last that there was.
    pub fn has_controller(&self) -> bool {
        self.controller.is_some()
    }

    /// A node's connection, to send by.
    pub fn connection(&mut self, node: i32, doing: &str) -> Result<&mut Connection, Failure> {
        let address = self.reach(node, doing)?;
        let lost = || Failure::Lost {
            doing: doing.into(),
            node: address.clone(),
            error: std::io::Error::other("there is no connection"),
            may_be_done: false,
        };
        self.connections.get_mut(&address).ok_or_else(lost)
    }

    pub fn learn(&mut self, node: i32, host: &str, port: i32) {
        self.nodes.insert(node, address(host, port));
    }

    pub fn nodes(&self) -> &BTreeMap<i32, String> {
        &self.nodes
    }

    /// All topics, or those named; a topic that is not there is an error. Learns where the nodes are.
    pub fn metadata(&mut self, doing: &str, topics: Option<&[String]>) -> Result<Vec<Topic>, Failure> {
        let named = topics.map(|names| {
            let topic = |name: &String| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
            names.iter().map(topic).collect::<Vec<_>>()
        });
        let request = MetadataRequest::default().with_topics(named).with_allow_auto_topic_creation(false);
        let Answer { message, node } = self.ask_any(doing, &request)?;
        self.learn_nodes(&message);
        let mut found = Vec::new();
        for topic in message.topics {
            let name = topic.name.as_ref().map_or_else(String::new, |name| name.to_string());
            check(topic.error_code, &format!("topic {name}"), None, &node)?;
            found.push(Topic::of(name, topic));
        }
        found.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(found)
    }

    fn learn_nodes(&mut self, message: &MetadataResponse) {
        self.nodes.clear();
        for broker in &message.brokers {
            self.learn(broker.node_id.0, &broker.host, broker.port);
        }
        self.controller = Some(message.controller_id.0).filter(|id| self.nodes.contains_key(id));
    }

    fn ask_at<R: Known>(
        &mut self,
        address: &str,
        doing: &str,
        request: &R,
    ) -> Result<Answer<R::Response>, Failure> {
        // Taken out: only one that has answered is put back.
        let mut connection = match self.connections.remove(address) {
            Some(connection) => connection,
            None => Connection::open(address, address.to_owned(), doing, &self.deadline)?,
        };
        let message = connection.ask(doing, request, &self.deadline);
        let node = connection.node.clone();
        if matches!(message, Ok(_) | Err(Failure::Unserved { .. })) {
            self.connections.insert(address.to_owned(), connection);
        }
        Ok(Answer { message: message?, node })
    }

    /// The address of a node that is connected: one that was asked before, else the first to answer.
    fn any(&mut self, doing: &str) -> Result<String, Failure> {
        if let Some(address) = self.connections.keys().next() {
            return Ok(address.clone());
        }
        let mut tried = Vec::new();
        let known: Vec<String> = self.bootstrap.iter().chain(self.nodes.values()).cloned().collect();
        for (nth, address) in known.iter().enumerate().filter(|(nth, one)| !known[..*nth].contains(one)) {
            // The rest of the time is shared among those that are left to try.
            let left = (known.len() - nth).try_into().unwrap_or(u32::MAX);
            let deadline = Deadline::after(self.deadline.left() / left);
            match Connection::open(address, address.clone(), doing, &deadline) {
                Ok(connection) => {
                    self.was_reached = true;
                    self.connections.insert(address.clone(), connection);
                    return Ok(address.clone());
                }
                Err(Failure::Lost { error, .. }) => tried.push(format!("{address}: {error}")),
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Unreachable { doing: doing.into(), tried, was_reached: self.was_reached })
    }

    /// The address of this node, connected.
    fn reach(&mut self, node: i32, doing: &str) -> Result<String, Failure> {
        if !self.nodes.contains_key(&node) {
            self.metadata(doing, Some(&[]))?;
        }
        let address = self.nodes.get(&node).cloned().ok_or_else(|| Failure::Lost {
            doing: doing.into(),
            node: format!("node {node}"),
            error: std::io::Error::other(
                "it is not among the nodes that are alive (`chronik cluster nodes`)",
            ),
            may_be_done: false,
        })?;
        let label = format!("node {node} ({address})");
        match self.connections.get_mut(&address) {
            Some(connection) => connection.node = label,
            None => {
                let connection = Connection::open(&address, label, doing, &self.deadline)?;
                self.connections.insert(address.clone(), connection);
            }
        }
        Ok(address)
    }

    /// Whether this node serves an API: older ones do not know what is newer than they are.
    pub fn serves<R: Known>(&mut self, node: i32, doing: &str) -> Result<bool, Failure> {
        Ok(self.connection(node, doing)?.serves::<R>())
    }
}

fn address(host: &str, port: i32) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

impl Topic {
    fn of(name: String, told: MetadataResponseTopic) -> Topic {
        let mut partitions: Vec<Partition> = told.partitions.into_iter().map(Partition::of).collect();
        partitions.sort_by_key(|one| one.partition);
        Topic { name, id: told.topic_id, is_internal: told.is_internal, partitions }
    }

    pub fn partition(&self, partition: i32) -> Option<&Partition> {
        self.partitions.iter().find(|one| one.partition == partition)
    }
}

impl Partition {
    fn of(told: MetadataResponsePartition) -> Partition {
        let ids = |ids: Vec<BrokerId>| ids.into_iter().map(|id| id.0).collect();
        Partition {
            partition: told.partition_index,
            leader: Some(told.leader_id.0).filter(|id| *id >= 0),
            leader_epoch: told.leader_epoch,
            replicas: ids(told.replica_nodes),
            isr: ids(told.isr_nodes),
            offline: ids(told.offline_replicas),
        }
    }

    pub fn is_under_replicated(&self) -> bool {
        self.isr.len() < self.replicas.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_numbers_and_colons_is_put_in_brackets() {
        assert_eq!(address("broker-1.example.org", 9092), "broker-1.example.org:9092");
        assert_eq!(address("::1", 9092), "[::1]:9092");
    }

    #[test]
    fn who_cannot_be_reached_is_named_with_all_that_was_tried() {
        let mut client = Client::new(&["127.0.0.1:1".into(), "127.0.0.1:2".into()], Duration::from_secs(5));
        let failure = client.patiently(|client| client.metadata("list topics", None)).unwrap_err();
        let said = failure.to_string();
        assert!(said.starts_with("list topics: no node answers: 127.0.0.1:1: "), "{said}");
        assert!(said.contains("; 127.0.0.1:2: ") && said.contains("--bootstrap"), "{said}");
    }
}
