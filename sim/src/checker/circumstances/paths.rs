//! Which of a node's tasks a request needs on its path.

use crate::fault::select::matches_pattern;
use crate::history::Trade;

/// Tasks that a request of this trade cannot do without. What is not here (checkpoints, the watchdog, the admin
/// port) may stop without anybody waiting.
fn roles(trade: Trade) -> &'static [&'static str] {
    match trade {
        Trade::Produce => &["kafka", "connection", "partition", "commit", "journal-files", "replicas"],
        Trade::Consume => &["kafka", "connection", "partition", "replicas"],
        Trade::Change => &["kafka", "connection", "partition", "commit", "journal-files", "replicas", "raft"],
        Trade::Group => &[
            "kafka",
            "connection",
            "partition",
            "commit",
            "journal-files",
            "replicas",
            "raft",
            "coordinator",
            "coordinators",
        ],
        Trade::Look => &["kafka", "connection", "partition", "replicas", "raft"],
    }
}

/// Whether a task that the pattern names is on the path of this client's requests.
pub(super) fn needs(pattern: &str, trade: Trade, client: Option<&str>) -> bool {
    roles(trade).iter().any(|role| {
        if matches_pattern(pattern, role) {
            return true;
        }
        let Some(instance) = pattern.strip_prefix(role).and_then(|rest| rest.strip_prefix('[')) else {
            // A star in or before the role's name may stand for it with any instance.
            return pattern.contains('*')
                && matches_pattern(pattern, &format!("{role}[{}:1]", client.unwrap_or("client")));
        };
        // Connections are called by their peer; which partition a request is about is not known here.
        *role != "connection" || {
            let peer = instance.split([':', ']', '*']).next().unwrap_or_default();
            client.is_none_or(|client| client == peer || instance.contains('*') && client.starts_with(peer))
        }
    })
}

/// Whether the pattern can name a task that runs on the threads that all others run on: the commit loops have
/// threads of their own.
pub(super) fn shares_threads(pattern: &str) -> bool {
    !(pattern == "commit" || pattern.starts_with("commit["))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_only_for_tasks_on_its_path() {
        for (pattern, trade, client, needed) in [
            ("*", Trade::Look, "client-1", true),
            ("partition*", Trade::Produce, "client-1", true),
            ("partition[t0-1]", Trade::Consume, "client-1", true),
            ("commit*", Trade::Produce, "client-1", true),
            ("commit*", Trade::Consume, "client-1", false),
            ("commit[raft journal]", Trade::Change, "client-1", true),
            ("raft*", Trade::Produce, "client-1", false),
            ("raft", Trade::Change, "client-1", true),
            ("checkpoint*", Trade::Produce, "client-1", false),
            ("stall-watchdog", Trade::Produce, "client-1", false),
            ("admin*", Trade::Look, "client-1", false),
            ("connection*", Trade::Look, "client-1", true),
            ("connection[client-1:*]", Trade::Look, "client-1", true),
            ("connection[client-2:*]", Trade::Look, "client-1", false),
            ("connection[client-*]", Trade::Look, "client-1", true),
        ] {
            assert_eq!(needs(pattern, trade, Some(client)), needed, "{pattern} for {trade:?} of {client}");
        }
    }
}
