//! `/debug/stalls`: what the process stands on, from the in-flight registry.

use std::collections::BTreeMap;

use io_backend::registry::{Entry, Registry};
use io_backend::{Backend, Moment};
use serde_json::{Value, json};

use crate::context::Context;
use crate::stall::writes::Refusing;
use crate::stall::{Health, StorageHealth};

/// Every disk operation in flight, oldest first, and the waits of tasks for one another, grouped.
pub fn describe(registry: &Registry, now: Moment, health: &StorageHealth) -> Value {
    let entries = registry.snapshot();
    let mut operations: Vec<&Entry> = entries.iter().filter(|e| e.operation).collect();
    operations.sort_by_key(|entry| (entry.since, entry.number));
    let writes = health.writes.get();
    json!({
        "storage": match health.get() {
            Health::Good => "good",
            Health::Stalled => "stalled",
            Health::Failed => "failed",
        },
        "records": refusal(writes.records.as_ref(), now),
        "metadata": refusal(writes.metadata.as_ref(), now),
        "operations": operations.iter().map(|entry| operation(entry, now)).collect::<Vec<_>>(),
        "waits": waits(&entries, now),
        "late_completions": registry.late_completions(),
    })
}

/// Who decides in the cluster, as this node knows it, and what it says of this node.
pub fn controller<B: Backend>(context: &Context<B>) -> Value {
    let (image, members) = (context.metadata.image(), context.metadata.members().get());
    let own = image.brokers.get(&context.node);
    let lost = context.health.contact.lost();
    json!({
        "node": members.leader.map(|leader| leader.0),
        "term": members.term,
        "metadata_index": image.index,
        "broker_epoch": own.map(|broker| broker.epoch.0),
        "fenced": own.map(|broker| broker.fenced),
        "contact_lost": lost.map(|lost| json!({
            "reason": lost.why.name(),
            "what": lost.why.to_string(),
            "for_ms": context.backend.now().since(lost.since).as_millis() as u64,
        })),
    })
}

/// Whether a journal takes what comes.
fn refusal(refusing: Option<&Refusing>, now: Moment) -> Value {
    match refusing {
        None => json!({ "taken": true }),
        Some(Refusing { reason, since }) => json!({
            "taken": false,
            "reason": reason.name(),
            "what": reason.to_string(),
            "to_do": reason.advice(),
            "for_ms": now.since(*since).as_millis() as u64,
        }),
    }
}

fn operation(entry: &Entry, now: Moment) -> Value {
    json!({
        "operation": entry.kind.name(),
        "what": entry.what,
        "file": entry.target,
        "task": entry.task.as_ref().map(|task| task.name.to_string()),
        "age_ms": age_ms(entry, now),
        "source": entry.site.to_string(),
    })
}

fn age_ms(entry: &Entry, now: Moment) -> u64 {
    now.since(entry.since).as_millis() as u64
}

/// One row for all tasks of a role that wait for the same thing at the same line.
fn waits(entries: &[Entry], now: Moment) -> Vec<Value> {
    struct Row<'a> {
        first: &'a Entry,
        count: usize,
        oldest_ms: u64,
    }
    let mut rows: BTreeMap<_, Row<'_>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.operation) {
        let role = entry.task.as_ref().map_or("", |task| task.name.role);
        let key = (entry.kind, entry.what, entry.target.clone(), role, entry.site.line());
        let row = rows.entry(key).or_insert(Row { first: entry, count: 0, oldest_ms: 0 });
        row.count += 1;
        row.oldest_ms = row.oldest_ms.max(age_ms(entry, now));
    }
    let mut rows: Vec<Row<'_>> = rows.into_values().collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.oldest_ms), row.first.number));
    rows.iter()
        .map(|row| {
            let holder = row.first.resource.as_ref().and_then(|resource| resource.holder());
            json!({
                "waits_for": row.first.kind.name(),
                "what": row.first.what,
                "target": row.first.target,
                "tasks": row.count,
                "of": row.first.task.as_ref().map(|task| task.name.role),
                "oldest_ms": row.oldest_ms,
                "gives_up": row.first.bounded,
                "source": row.first.site.to_string(),
                "held_by": holder.map(|holder| json!({
                    "task": holder.task.map(|task| task.name.to_string()),
                    "held_for_ms": now.since(holder.since).as_millis() as u64,
                    "source": holder.site.to_string(),
                })),
            })
        })
        .collect()
}
