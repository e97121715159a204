//! All that can be configured, as the document that people read: our keys, Kafka's names of them, and what topics may have.

use crate::config::kafka::{self, KAFKA_NAMES, Meaning};
use crate::config::{Config, KEYS, dynamic};

use super::configs::TOPIC_SETTINGS;
use super::group_configs::GROUP_SETTINGS;

const HEAD: &str = "# Configuration

Written by `chronik keys --markdown`; a test says when it is not current.

A key is set in the TOML file (`--config`), by its variable, or, where there is one, by a flag: a flag beats a variable beats the
file. Most keys have a name of Kafka's beside ours, and either may be used wherever keys are set: `num.partitions = 6`,
`CHRONIK_NUM_PARTITIONS=6` and `topics.partitions = 6` are the same. Two names of one key in the same place have to agree. A value
under Kafka's name is in Kafka's unit. In the file a name with dots may be written in tables (`[log]` and `retention.ms = 1000`) or in
one line.

Clients see both with DescribeConfigs: Kafka's names with Kafka's sources and synonyms, and ours, which only show. What is marked as
dynamic can be changed while the broker runs (`kafka-configs.sh --alter`, IncrementalAlterConfigs) for one broker or for all, and
takes effect without a restart; it is kept in the metadata, beats what the file says, and is deleted to go back to that.
";

/// The whole of it.
pub fn document() -> String {
    let config = Config::default();
    let mut text = HEAD.to_owned();
    text += "\n## Keys\n\n| key | default | what | legal | Kafka's names |\n|---|---|---|---|---|\n";
    for key in KEYS {
        let names = KAFKA_NAMES.iter().filter(|known| known.key().is_some_and(|of| of.path == key.path));
        let names: Vec<String> = names.map(|known| format!("`{}`{}", known.name, marked(known))).collect();
        text += &row(&[
            &format!("`{}`", key.path),
            &code(&(key.show)(&config)),
            key.about,
            key.range,
            &names.join(", "),
        ]);
    }
    text += "\n## Kafka's names of what cannot be changed\n\n";
    text += "They may be given with the value that holds anyway, so that a configuration need not be stripped of them.\n\n";
    text += "| name | value | why |\n|---|---|---|\n";
    for known in KAFKA_NAMES {
        if let Meaning::Fixed { value, why } = known.meaning {
            text += &row(&[&format!("`{}`", known.name), &code(value), why]);
        }
    }
    text += "\n## Kafka's names that are refused\n\nEach with the reason, wherever it is set.\n\n| why | names |\n|---|---|\n";
    for (why, names) in kafka::refused() {
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        text += &row(&[why, &names.join(" ")]);
    }
    text += "\n## Topics\n\nSet when a topic is created, or later. Where a topic has none of its own, the broker's counts. Where a \
             reason stands under *only the default*, every other value is refused with it.\n\n";
    text +=
        "| name | default | of the broker | what it does here | only the default |\n|---|---|---|---|---|\n";
    for setting in TOPIC_SETTINGS {
        let broker = setting.of_broker().map(|name| format!("`{name}`")).unwrap_or_default();
        text += &row(&[
            &format!("`{}`", setting.name),
            &code(&setting.default_value(&config)),
            &broker,
            setting.doc,
            setting.only.unwrap_or_default(),
        ]);
    }
    text += "\n## Groups of consumers\n\nOf a group of the consumer protocol (KIP-848), whether it is there or not (`chronik configs set group`, \
             `kafka-configs.sh --entity-type groups`). In effect from a member's next heartbeat on. Where a group has none of its own, \
             the broker's counts.\n\n| name | default | of the broker | what it does here |\n|---|---|---|---|\n";
    for setting in GROUP_SETTINGS {
        let name = format!("`{}`", setting.name);
        let broker = format!("`{}`", setting.of_broker);
        text += &row(&[&name, &code(&setting.default_value(&config)), &broker, setting.doc]);
    }
    text
}

fn marked(known: &kafka::KafkaName) -> &'static str {
    if dynamic::is_followed(known) { " (dynamic)" } else { "" }
}

fn code(value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("`{value}`") }
}

fn row(cells: &[&str]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_current() {
        let written = include_str!("../../../docs/configuration.md");
        assert_eq!(
            written,
            document(),
            "write it anew: cargo run -p broker -- keys --markdown > docs/configuration.md"
        );
    }
}
