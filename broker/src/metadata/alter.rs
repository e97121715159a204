//! What a change of configurations does to those that are there. Pure and deterministic, as all of
//! [`apply`](super::apply): whether a value is legal is settled before a change is proposed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::configs::elements;
use super::partition_change::{Change, change_partitions};
use super::{
    AlteredConfigs, ConfigChange, ConfigOperation, ConfigResource, MetadataImage, TopicError, TopicImage,
};
use crate::config::dynamic::Overrides;
use crate::limits;

/// The configurations after a change.
pub fn altered(current: &Overrides, change: &ConfigChange) -> Overrides {
    let operations = match change {
        ConfigChange::Replace(all) => return all.clone(),
        ConfigChange::Alter(operations) => operations,
    };
    let mut next = current.clone();
    for (name, operation) in operations {
        let joined = |default: &str, keep: &dyn Fn(&str) -> bool, more: &str| {
            let now = next.get(name).map_or(default, String::as_str);
            let mut list: Vec<&str> = elements(now).filter(|element| keep(element)).collect();
            for element in elements(more) {
                if !list.contains(&element) {
                    list.push(element);
                }
            }
            list.join(",")
        };
        let value = match operation {
            ConfigOperation::Set(value) => Some(value.clone()),
            ConfigOperation::Delete => None,
            ConfigOperation::Append { value, default } => Some(joined(default, &|_| true, value)),
            ConfigOperation::Subtract { value, default } => {
                Some(joined(default, &|element| elements(value).all(|gone| gone != element), ""))
            }
        };
        match value {
            Some(value) => drop(next.insert(name.clone(), value)),
            None => drop(next.remove(name)),
        }
    }
    next
}

pub(super) fn alter_configs(image: &mut MetadataImage, resource: &AlteredConfigs) -> Result<(), TopicError> {
    let before = image.clone();
    set_configs(image, resource)?;
    let same =
        image.topics.ptr_eq(&before.topics) && Arc::ptr_eq(&image.broker_configs, &before.broker_configs);
    if !same {
        // A smaller minimum commits without those that were eligible; an unclean election may be allowed by now.
        change_partitions(image, &[], |partition, _| {
            (!partition.elr.is_empty() || partition.leader.is_none()).then(|| Change::none(partition))
        });
    }
    Ok(())
}

fn set_configs(image: &mut MetadataImage, resource: &AlteredConfigs) -> Result<(), TopicError> {
    match &resource.resource {
        ConfigResource::Topic(id) => {
            let topic = image.topic_by_id(*id).ok_or(TopicError::Unknown)?;
            let configs = altered(&topic.configs, &resource.change);
            if configs != topic.configs {
                let changed = TopicImage { configs, ..TopicImage::clone(topic) };
                image.topics.insert(changed.name.clone(), Arc::new(changed));
            }
        }
        ConfigResource::AllBrokers => {
            let of_all = altered(&image.broker_configs.of_all, &resource.change);
            if of_all != image.broker_configs.of_all {
                Arc::make_mut(&mut image.broker_configs).of_all = of_all;
            }
        }
        ConfigResource::Broker(id) => {
            if !image.brokers.contains_key(id) {
                return Err(TopicError::InvalidConfig(format!("broker {id} is not registered")));
            }
            let none = BTreeMap::new();
            let before = image.broker_configs.of_one.get(id).unwrap_or(&none);
            let configs = altered(before, &resource.change);
            if configs != *before {
                let of_one = &mut Arc::make_mut(&mut image.broker_configs).of_one;
                match configs.is_empty() {
                    true => drop(of_one.remove(id)),
                    false => drop(of_one.insert(*id, configs)),
                }
            }
        }
        ConfigResource::Group(id) => {
            let before = image.group_configs.get(id);
            let is_new = before.is_none();
            let configs = altered(before.map_or(&BTreeMap::new(), |before| &**before), &resource.change);
            if configs.is_empty() {
                image.group_configs.remove(id);
            } else if is_new && image.group_configs.len() >= limits::CONFIGURED_GROUPS_MAX {
                let max = limits::CONFIGURED_GROUPS_MAX;
                let why = format!(
                    "{max} groups have configurations, more are not allowed: take those of others away"
                );
                return Err(TopicError::InvalidConfig(why));
            } else if before.is_none_or(|before| **before != configs) {
                image.group_configs.insert(id.clone(), Arc::new(configs));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_grow_and_shrink_by_their_elements() {
        let append = |value: &str| ConfigOperation::Append { value: value.into(), default: "delete".into() };
        let subtract =
            |value: &str| ConfigOperation::Subtract { value: value.into(), default: "delete".into() };
        let table = [
            (None, append("a"), Some("delete,a")),
            (Some("a,b"), append("b, c"), Some("a,b,c")),
            (Some(""), append("a"), Some("a")),
            (None, subtract("delete"), Some("")),
            (Some("a,b,c"), subtract("c,a"), Some("b")),
            (Some("a"), subtract("z"), Some("a")),
            (Some("a"), ConfigOperation::Set("b".into()), Some("b")),
            (Some("a"), ConfigOperation::Delete, None),
            (None, ConfigOperation::Delete, None),
        ];
        for (before, operation, after) in table {
            let of = |value: Option<&str>| -> Overrides {
                value.map(|value| ("list".to_owned(), value.to_owned())).into_iter().collect()
            };
            let change = ConfigChange::Alter(vec![("list".to_owned(), operation.clone())]);
            assert_eq!(altered(&of(before), &change), of(after), "{before:?} {operation:?}");
        }
    }
}
