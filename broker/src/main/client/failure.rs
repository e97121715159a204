//! What keeps a command from doing what it was asked: what happened, at which node, and what can be done about it.

use std::io;
use std::time::Duration;

use kafka_protocol::ResponseError;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line is wrong in a way that only shows when it is looked at as a whole.
    #[error("{0}")]
    Usage(String),
    /// A file or standard input cannot be read, or has a line that means nothing.
    #[error("{0}")]
    Input(String),
    /// Nobody reads any more, or the disk is full.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// No node could be connected to.
    #[error("{doing}: no node answers: {}{}", tried.join("; "), advice_unreachable(*was_reached))]
    Unreachable { doing: String, tried: Vec<String>, was_reached: bool },
    /// A connection ended, or was silent until the deadline.
    #[error("{doing}: {node}: {error}{}", if *may_be_done { "; whether it was done is not known" } else { "" })]
    Lost { doing: String, node: String, error: io::Error, may_be_done: bool },
    /// The cluster is as it is to be, and has no such node now.
    #[error("{doing}: node {node} is not among the nodes that are alive: {}", .alive.iter().map(i32::to_string).collect::<Vec<_>>().join(", "))]
    Absent { doing: String, node: i32, alive: Vec<i32> },
    /// What came is no response to what was asked.
    #[error("{doing}: {node} gave an answer that cannot be read: {why}")]
    Malformed { doing: String, node: String, why: String },
    /// The node has no version of the API that is known here.
    #[error("{doing}: {node} serves {api} {theirs}, and this command needs {ours}")]
    Unserved { doing: String, node: String, api: &'static str, ours: String, theirs: String },
    /// The node said no.
    #[error("{what}: {}{}{}, says {node}{}", kafka_name(*code), if message.is_empty() { "" } else { ": " }, message, advice(*code))]
    Refused { what: String, code: ResponseError, message: String, node: String },
    /// It was refused for a while, again and again.
    #[error("not within {}: {last}", humantime::format_duration(*waited))]
    TimedOut { waited: Duration, last: Box<Failure> },
    /// Of what was asked, some was not done.
    #[error("{}", .0.iter().map(Failure::to_string).collect::<Vec<_>>().join("\nchronik: "))]
    Several(Vec<Failure>),
}

impl Failure {
    /// Whether asking again later may help, without doing anything twice that must not be.
    pub fn is_passing(&self) -> bool {
        match self {
            // Without such a topic there is nothing to wait for: nodes themselves wait until they know a new one.
            Failure::Refused { code: ResponseError::UnknownTopicOrPartition, .. } => false,
            Failure::Refused { code, .. } => code.is_retriable(),
            Failure::Lost { may_be_done, .. } => !may_be_done,
            Failure::Unreachable { was_reached, .. } => *was_reached,
            _ => false,
        }
    }

    pub fn is_usage(&self) -> bool {
        matches!(self, Failure::Usage(_))
    }

    /// The reader of a pipe has seen enough.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Kafka's code, where a node said one.
    pub fn code(&self) -> Option<ResponseError> {
        match self {
            Failure::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// None where nothing failed.
    pub fn of_all(failures: Vec<Failure>) -> Result<(), Failure> {
        let mut failures = failures;
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => Err(Failure::Several(failures)),
        }
    }
}

/// What a cluster lacks that has no controller, and who tells more.
pub const CONTROLLER_NEEDS: &str = "most of the voters have to run for there to be one; /health/ready of a node's admin port says what it lacks";

/// A node that knows of no controller keeps the question: more time alone is no help.
pub fn without_controller(failure: Failure) -> Failure {
    match failure {
        Failure::Lost { doing, node, error, may_be_done } if error.kind() == io::ErrorKind::TimedOut => {
            let why = format!("no answer in time, and no controller is known: {CONTROLLER_NEEDS}");
            Failure::Lost { doing, node, error: io::Error::new(io::ErrorKind::TimedOut, why), may_be_done }
        }
        failure => failure,
    }
}

/// A code of a response as a result.
pub fn check(code: i16, what: &str, message: Option<&str>, node: &str) -> Result<(), Failure> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(code) => Err(Failure::Refused {
            what: what.to_owned(),
            code,
            message: message.unwrap_or_default().trim_end_matches('.').to_owned(),
            node: node.to_owned(),
        }),
    }
}

/// As Kafka writes it: `TOPIC_ALREADY_EXISTS`.
pub fn kafka_name(code: ResponseError) -> String {
    if let ResponseError::Unknown(number) = code {
        return format!("error code {number}");
    }
    let mut name = String::new();
    for letter in code.to_string().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn advice_unreachable(was_reached: bool) -> &'static str {
    match was_reached {
        true => "",
        false => ". Is a node running there? --bootstrap HOST:PORT or CHRONIK_BOOTSTRAP say where",
    }
}

/// What can be done about it, where that is more than the name of the error says.
fn advice(code: ResponseError) -> String {
    use ResponseError as E;
    let advice = match code {
        E::UnknownTopicOrPartition => ". `chronik topics list` shows those that are there",
        E::GroupIdNotFound => ". `chronik groups list` shows those that are there",
        E::NonEmptyGroup | E::UnknownMemberId => {
            ". Stop its members first: `chronik groups describe` shows them"
        }
        E::GroupSubscribedToTopic => {
            ". Stop the members that read it first: `chronik groups describe` shows them"
        }
        E::InvalidReplicationFactor => ". `chronik cluster nodes` shows how many nodes there are",
        E::NotEnoughReplicas => ". `chronik topics describe` shows which replicas are in sync",
        E::LeaderNotAvailable | E::NotLeaderOrFollower => ". `chronik topics describe` shows who leads",
        E::OffsetOutOfRange => ". `chronik topics offsets` shows the first and the last",
        E::MessageTooLarge | E::RecordListTooLarge => {
            ". The topic's max.message.bytes says how large a record may be"
        }
        E::RequestTimedOut => {
            ". To change the metadata takes most of the voters (`chronik cluster quorum`), to write all replicas in sync (`chronik topics describe`)"
        }
        E::NotController => return format!(". Where there is no controller, {CONTROLLER_NEEDS}"),
        _ => "",
    };
    advice.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_named_as_kafka_names_them() {
        assert_eq!(kafka_name(ResponseError::NotLeaderOrFollower), "NOT_LEADER_OR_FOLLOWER");
        assert_eq!(kafka_name(ResponseError::KafkaStorageError), "KAFKA_STORAGE_ERROR");
        assert_eq!(kafka_name(ResponseError::Unknown(999)), "error code 999");
    }

    #[test]
    fn a_refusal_says_what_who_and_what_to_do() {
        let refused =
            check(3, "topic orders", Some("This server does not host it."), "node 1 (h:1)").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "topic orders: UNKNOWN_TOPIC_OR_PARTITION: This server does not host it, says node 1 (h:1). \
             `chronik topics list` shows those that are there"
        );
        assert!(check(0, "topic orders", None, "node 1").is_ok());
    }

    #[test]
    fn who_finds_no_controller_is_told_what_it_takes_to_have_one() {
        let refused = check(41, "create topic orders", None, "node 1").unwrap_err().to_string();
        assert!(
            refused.starts_with("create topic orders: NOT_CONTROLLER, says node 1. Where there is no controller, most of the voters"),
            "{refused}"
        );
        let lost = |kind: io::ErrorKind| {
            let failure = Failure::Lost {
                doing: "describe the quorum".into(),
                node: "node 1".into(),
                error: kind.into(),
                may_be_done: false,
            };
            without_controller(failure)
        };
        let silent = lost(io::ErrorKind::TimedOut);
        assert!(silent.is_passing() && silent.to_string().contains("most of the voters"), "{silent}");
        assert!(!lost(io::ErrorKind::ConnectionRefused).to_string().contains("voters"));
    }

    #[test]
    fn only_what_passes_and_does_nothing_twice_is_asked_again() {
        let refused =
            |code: ResponseError| check(code.code(), "it", None, "node 1").unwrap_err().is_passing();
        assert!(refused(ResponseError::NotLeaderOrFollower) && refused(ResponseError::NotCoordinator));
        assert!(
            !refused(ResponseError::TopicAlreadyExists) && !refused(ResponseError::UnknownTopicOrPartition)
        );
        let lost = |may_be_done| Failure::Lost {
            doing: "create".into(),
            node: "node 1".into(),
            error: io::ErrorKind::UnexpectedEof.into(),
            may_be_done,
        };
        assert!(lost(false).is_passing() && !lost(true).is_passing());
    }
}
