//! Why a node stands still, in lines for people: what is in flight, what is held behind it, who waits.

use crate::world::snapshot::ProcessSnapshot;

pub(super) fn explain(snapshots: &[ProcessSnapshot]) -> Vec<String> {
    let mut lines = Vec::new();
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.machine.starts_with("node")) {
        for entry in snapshot.entries.iter().filter(|entry| entry.operation) {
            lines.push(format!(
                "{}: {} of {} in flight for {:?}, begun by {} at {}",
                snapshot.machine,
                entry.kind.name(),
                entry.target.as_deref().unwrap_or("?"),
                snapshot.now.since(entry.since),
                entry.task.as_ref().map(|task| task.name.to_string()).unwrap_or_default(),
                entry.site
            ));
        }
    }
    lines
}
