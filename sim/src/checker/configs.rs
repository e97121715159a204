//! Configurations: what was acknowledged is what is told afterwards.

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{ConfigChange, ConfigSeen, History, seconds};

pub fn lost_configs(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("lost-config", Verdict::Safety);
    for seen in &history.configs_seen {
        let changes: Vec<&ConfigChange> =
            history.config_changes.iter().filter(|change| change.key == seen.key).collect();
        // They were wanted one after the other.
        let last = changes.iter().rposition(|change| change.acked.is_some_and(|acked| acked <= seen.sent));
        if is_explained(seen, &changes, last) {
            continue;
        }
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "its default".to_owned());
        let was = match last.map(|last| changes[last]) {
            Some(change) => {
                let acked = change.acked.unwrap_or(change.sent);
                format!("was set to {} (acknowledged at {})", value(&change.value), seconds(acked))
            }
            None => "was never set".to_owned(),
        };
        findings.add(format!(
            "{} {was}, and {} was told {} at {}",
            seen.key,
            seen.client,
            value(&seen.value),
            seconds(seen.at)
        ));
    }
    findings.all()
}

/// What was acknowledged last; what has been asked for since; and what may still come of an attempt whose outcome is not
/// known.
fn is_explained(seen: &ConfigSeen, changes: &[&ConfigChange], last: Option<usize>) -> bool {
    let acknowledged = last.and_then(|last| changes[last].value.clone());
    let possible = |(index, change): (usize, &&ConfigChange)| {
        let since = last.is_none_or(|last| index > last);
        change.value == seen.value && change.sent <= seen.at && (since || change.unknown_attempts > 0)
    };
    acknowledged == seen.value || changes.iter().enumerate().any(possible)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{At, ConfigKey};

    fn key() -> ConfigKey {
        ConfigKey { kind: 2, resource: "t".into(), name: "retention.ms" }
    }

    fn change(value: Option<&str>, sent: At, acked: Option<At>) -> ConfigChange {
        let unknown_attempts = u32::from(acked.is_none());
        ConfigChange { key: key(), value: value.map(str::to_owned), sent, unknown_attempts, acked }
    }

    fn told(changes: Vec<ConfigChange>, value: Option<&str>, sent: At) -> usize {
        let (value, at) = (value.map(str::to_owned), sent + 1);
        let seen = ConfigSeen { client: "c".into(), key: key(), value, sent, at };
        let history = History { config_changes: changes, configs_seen: vec![seen], ..History::default() };
        lost_configs(&history).len()
    }

    #[test]
    fn what_was_acknowledged_is_told_and_nothing_older() {
        let changes = || vec![change(Some("1"), 0, Some(1)), change(Some("2"), 5, Some(6))];
        assert_eq!(told(changes(), Some("2"), 10), 0);
        assert_eq!(told(changes(), Some("1"), 10), 1);
        assert_eq!(told(changes(), None, 10), 1);
        assert_eq!(told(changes(), Some("3"), 10), 1);
        assert_eq!(told(Vec::new(), None, 10), 0);
        assert_eq!(told(vec![change(Some("1"), 0, Some(1)), change(None, 5, Some(6))], Some("1"), 10), 1);
    }

    #[test]
    fn what_is_not_known_to_have_happened_may_be_told_or_not() {
        let changes = || vec![change(Some("1"), 0, Some(1)), change(Some("2"), 5, None)];
        assert_eq!(told(changes(), Some("1"), 10), 0);
        assert_eq!(told(changes(), Some("2"), 10), 0);
        assert_eq!(told(changes(), Some("2"), 3), 1, "before it was asked for");
        let overtaken = vec![change(Some("1"), 0, None), change(Some("2"), 5, Some(6))];
        assert_eq!(told(overtaken, Some("1"), 10), 0, "an old attempt may come through late");
    }
}
