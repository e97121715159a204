//! Configurations as clients are told of them: each with its value and all that stands behind it, as Kafka lists it.

use io_backend::Backend;

use crate::config::dynamic::{Dynamic, Overrides, is_followed};
use crate::config::kafka::{self, KAFKA_NAMES, KafkaName, Meaning};
use crate::config::{Config, KEYS, Key};
use crate::context::Context;
use crate::metadata::configs::TOPIC_SETTINGS;
use crate::metadata::group_configs::{GROUP_SETTINGS, GroupSetting};
use crate::metadata::{Effective, MIN_INSYNC_REPLICAS, default_min_insync_replicas};

/// Where a value comes from, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    Group = 8,
}

/// A value that counts where nothing before it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: String,
    pub source: Source,
}

/// One configuration in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub value: Option<String>,
    pub read_only: bool,
    /// By Kafka's numbers.
    pub kind: i8,
    pub about: String,
    /// The first is the one that counts.
    pub synonyms: Vec<Synonym>,
}

impl Entry {
    pub fn source(&self) -> Source {
        self.synonyms.first().map_or(Source::Default, |synonym| synonym.source)
    }
}

/// What a broker knows of configurations at one moment.
pub struct Known {
    effective: Effective,
    defaults: Config,
}

impl Known {
    pub fn of<B: Backend>(context: &Context<B>) -> Known {
        Known { effective: context.metadata.shown_config(), defaults: Config::default() }
    }

    /// All configurations of a topic with so many replicas that has these of its own.
    pub fn of_topic(&self, own: &Overrides, replicas: usize) -> Vec<Entry> {
        let mut entries = self.of_topic_by_name(own);
        let left_open = |entry: &&mut Entry| {
            entry.name == MIN_INSYNC_REPLICAS && self.effective.config.min_insync_replicas().is_none()
        };
        if let Some(entry) = entries.iter_mut().find(left_open)
            && entry.source() == Source::Default
        {
            let minimum = default_min_insync_replicas(replicas).to_string();
            entry.value = Some(minimum.clone());
            entry.synonyms.iter_mut().for_each(|synonym| synonym.value.clone_from(&minimum));
        }
        entries
    }

    fn of_topic_by_name(&self, own: &Overrides) -> Vec<Entry> {
        TOPIC_SETTINGS
            .iter()
            .map(|known| {
                let set = own.get(known.name);
                let own = set.map(|value| Synonym {
                    name: known.name.to_owned(),
                    value: value.clone(),
                    source: Source::Topic,
                });
                let of_broker = known.of_broker().and_then(kafka::find);
                let of_broker = of_broker.map(|known| self.synonyms(known)).unwrap_or_default();
                Entry {
                    name: known.name.to_owned(),
                    value: Some(set.cloned().unwrap_or_else(|| known.default_value(&self.effective.config))),
                    read_only: false,
                    kind: known.kind.code(),
                    about: known.doc.to_owned(),
                    synonyms: own.into_iter().chain(of_broker).collect(),
                }
            })
            .collect()
    }

    /// All configurations of a group of consumers that has these of its own.
    pub fn of_group(&self, own: Option<&Overrides>) -> Vec<Entry> {
        let entry = |known: &GroupSetting| {
            let set = own.and_then(|own| own.get(known.name));
            let own = set.map(|value| Synonym {
                name: known.name.to_owned(),
                value: value.clone(),
                source: Source::Group,
            });
            let of_broker =
                kafka::find(known.of_broker).map(|known| self.synonyms(known)).unwrap_or_default();
            Entry {
                name: known.name.to_owned(),
                value: Some(set.cloned().unwrap_or_else(|| known.default_value(&self.effective.config))),
                read_only: false,
                kind: known.kind().code(),
                about: known.doc.to_owned(),
                synonyms: own.into_iter().chain(of_broker).collect(),
            }
        };
        GROUP_SETTINGS.iter().map(entry).collect()
    }

    /// This broker's configurations: by Kafka's names, then by ours.
    pub fn of_broker(&self) -> Vec<Entry> {
        let theirs = KAFKA_NAMES.iter().map(|known| {
            let synonyms = self.synonyms(known);
            Entry {
                name: known.name.to_owned(),
                value: synonyms.first().map(|synonym| synonym.value.clone()),
                read_only: !is_followed(known),
                kind: known.kind.code(),
                about: known.about(),
                synonyms,
            }
        });
        theirs.chain(KEYS.iter().map(|key| self.of_key(key))).collect()
    }

    /// What is set of all brokers while they run.
    pub fn of_all_brokers(&self) -> Vec<Entry> {
        let set = self.effective.dynamic.of_all.iter().filter_map(|(name, value)| {
            let known = kafka::find(name)?;
            let source = Source::DynamicDefaultBroker;
            Some(Entry {
                name: name.clone(),
                value: Some(value.clone()),
                read_only: false,
                kind: known.kind.code(),
                about: known.about(),
                synonyms: vec![Synonym { name: name.clone(), value: value.clone(), source }],
            })
        });
        set.collect()
    }

    /// A key of ours: what it comes to, and where from. It is changed under Kafka's name, if at all.
    fn of_key(&self, key: &Key) -> Entry {
        let value = (key.show)(&self.effective.config);
        let Dynamic { of_all, of_this } = &*self.effective.dynamic;
        let is_set = |overrides: &Overrides| {
            overrides.keys().filter_map(|name| kafka::find(name)).any(|known| path(known) == Some(key.path))
        };
        let source = if is_set(of_this) {
            Source::DynamicBroker
        } else if is_set(of_all) {
            Source::DynamicDefaultBroker
        } else if self.effective.own.stated.contains_key(key.path) {
            Source::StaticBroker
        } else {
            Source::Default
        };
        let kind = match () {
            () if value.parse::<bool>().is_ok() => kafka::Kind::Boolean,
            () if value.parse::<i64>().is_ok() => kafka::Kind::Long,
            () => kafka::Kind::Text,
        };
        Entry {
            name: key.path.to_owned(),
            value: Some(value.clone()),
            read_only: true,
            kind: kind.code(),
            about: format!("A key of Chronik's own: {}.", key.about),
            synonyms: vec![Synonym { name: key.path.to_owned(), value, source }],
        }
    }

    /// What stands behind a name of Kafka's, in Kafka's order: by source, and there by unit. As there, what is said in
    /// other units counts only behind what is said in this one.
    fn synonyms(&self, known: &KafkaName) -> Vec<Synonym> {
        const SOURCES: [Source; 4] =
            [Source::DynamicBroker, Source::DynamicDefaultBroker, Source::StaticBroker, Source::Default];
        let in_source = |source: Source| {
            known.alternatives().iter().filter_map(|name| kafka::find(name)).filter_map(move |known| {
                let value = self.value_in(source, known)?;
                Some(Synonym { name: known.name.to_owned(), value, source })
            })
        };
        SOURCES.into_iter().flat_map(in_source).skip_while(|synonym| synonym.name != known.name).collect()
    }

    fn value_in(&self, source: Source, known: &KafkaName) -> Option<String> {
        match source {
            Source::Topic | Source::Group => None,
            Source::DynamicBroker => self.effective.dynamic.of_this.get(known.name).cloned(),
            Source::DynamicDefaultBroker => self.effective.dynamic.of_all.get(known.name).cloned(),
            Source::StaticBroker => {
                let said = *self.effective.own.stated.get(path(known)?)?;
                // What is said in one unit, or under our name, is told in that one, or the finest.
                let told = match known.alternatives() {
                    names if names.contains(&said) => said,
                    names => names[0],
                };
                (told == known.name).then(|| known.show(&self.effective.own)).flatten()
            }
            Source::Default => {
                // The coarsest unit that can say it.
                let units = known.alternatives().iter().rev().filter_map(|name| kafka::find(name));
                let told = units.clone().find(|unit| unit.show(&self.defaults).is_some())?;
                (told.name == known.name).then(|| known.show(&self.defaults)).flatten()
            }
        }
    }
}

fn path(known: &KafkaName) -> Option<&'static str> {
    match known.meaning {
        Meaning::Key { path, .. } => Some(path),
        Meaning::Fixed { .. } => None,
    }
}

#[cfg(test)]
#[path = "config_entries_tests.rs"]
mod tests;
