//! How processes ended, and what they left behind.

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{At, seconds};

/// A process that ended without being killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub node: String,
    pub at: At,
    /// Its exit status; absent for a panic.
    pub status: Option<i32>,
    pub why: String,
    /// Its disk had failed: then ending with a status of its own is what it should do.
    pub disk_failed: bool,
}

/// A panic is a crash always; a status other than zero is, unless the disk had given reason.
pub fn crashes(endings: &[Ending]) -> Vec<Violation> {
    let mut findings = Findings::of("crash", Verdict::Crash);
    for ending in endings {
        let what = match ending.status {
            None => "panicked".to_owned(),
            Some(0) => continue,
            Some(_) if ending.disk_failed => continue,
            Some(status) => format!("ended with status {status}"),
        };
        findings.add(format!("{} {what} at {}: {}", ending.node, seconds(ending.at), ending.why));
    }
    findings.all()
}

/// After a polite stop nothing is in flight any more.
pub fn left_in_flight(entries: &[String]) -> Vec<Violation> {
    let mut findings = Findings::of("left-in-flight", Verdict::Freeze);
    for entry in entries {
        findings.add(format!("after the stop there is still: {entry}"));
    }
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(status: Option<i32>, disk_failed: bool) -> Ending {
        Ending { node: "node1".into(), at: 1, status, why: "because".into(), disk_failed }
    }

    #[test]
    fn a_process_ends_well_or_for_its_disk_or_has_crashed() {
        for (status, disk_failed, crashes_found) in [
            (Some(0), false, 0),
            (Some(5), true, 0),
            (Some(5), false, 1),
            (Some(1), false, 1),
            (None, false, 1),
            (None, true, 1),
        ] {
            let found = crashes(&[ending(status, disk_failed)]).len();
            assert_eq!(found, crashes_found, "{status:?}, disk failed: {disk_failed}");
        }
    }

    #[test]
    fn what_is_still_in_flight_after_a_stop_is_named() {
        assert_eq!(left_in_flight(&[]), []);
        assert!(left_in_flight(&["fdatasync of journal/1".into()])[0].what.contains("journal/1"));
    }
}
