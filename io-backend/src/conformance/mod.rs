//! The contracts of the traits as checks that any backend can be held to.
//!
//! [`all`] wants a backend that nothing is wrong with (no faults, no pressure) and an empty directory of its
//! disk, and must run as, or inside, a task of that backend. It tells of each check whether it held; a check
//! that hangs fails with what the process stood on. Nothing here measures how long something takes,
//! except that it must not be shorter than asked for.

mod claim;
mod disk;
mod dedicated;
mod network;
mod tasks;
mod waiting;

use std::fmt;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use crate::backend::Backend;
use crate::disk::Disk;
use crate::registry::Entry;
use crate::time::{Deadline, within};
use claim::{Broken, Outcome, soon};

/// How long one check may take on the backend's clock.
const CHECK_TIME_MAX: Duration = Duration::from_secs(60);

/// What became of each check.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order in which they ran.
    pub checks: Vec<Check>,
}

/// One check, and what became of it.
#[derive(Clone, Debug)]
pub struct Check {
    /// The sentence that is checked, as the name of its function.
    pub name: &'static str,
    /// What was broken, if anything.
    pub broken: Option<String>,
}

impl Report {
    /// Whether there were checks and all of them held.
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.broken().next().is_none()
    }

    /// The checks that did not hold.
    pub fn broken(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.broken.is_some())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            match &check.broken {
                None => writeln!(f, "ok      {}", check.name)?,
                Some(reason) => writeln!(f, "BROKEN  {}: {reason}", check.name)?,
            }
        }
        write!(f, "{} checks, {} broken", self.checks.len(), self.broken().count())
    }
}

/// Runs every check, one after the other, each in a directory of its own under `dir`.
pub async fn all<B: Backend>(backend: &B, dir: &Path) -> Report {
    let mut report = Report::default();
    macro_rules! checks {
        ($($module:ident::$name:ident),+ $(,)?) => {$(
            let own = dir.join(stringify!($name));
            let check = async {
                backend.disk().create_dir_all(&own, soon(backend)).await?;
                $module::$name(backend, &own).await
            };
            let broken = bounded(backend, check).await.err().map(|Broken(reason)| reason);
            report.checks.push(Check { name: stringify!($name), broken });
        )+};
    }
    checks![
        disk::a_read_sees_what_was_written,
        disk::a_read_is_short_only_where_the_file_ends,
        disk::gaps_read_as_zeros,
        disk::a_file_is_opened_as_asked,
        disk::an_error_says_what_failed_where,
        disk::a_rename_replaces_and_open_files_stay,
        disk::a_file_can_be_removed_once,
        disk::a_directory_lists_what_it_holds_by_name,
        disk::a_volume_tells_its_space,
        disk::a_directory_can_be_synced_if_it_is_there,
        disk::a_directory_is_taken_once,
        disk::writes_at_distinct_positions_do_not_disturb_each_other,
        disk::a_large_write_arrives_whole,
        disk::nothing_can_be_read_and_written,
        disk::an_operation_in_flight_has_an_entry,
        disk::an_operation_outlives_its_waiter,
        dedicated::a_dedicated_loop_writes_durably,
        dedicated::a_dedicated_loop_serves_requests,
        dedicated::a_dedicated_loop_can_be_ended,
        tasks::a_timer_is_never_early,
        tasks::a_dropped_timer_wakes_nobody,
        tasks::the_clock_does_not_go_back,
        tasks::draws_differ,
        tasks::a_task_runs_also_without_its_handle,
        tasks::an_aborted_task_ends,
        tasks::a_task_knows_its_name,
        tasks::nobody_presses_on_a_seam,
        waiting::messages_arrive_in_order,
        waiting::a_full_channel_makes_its_senders_wait,
        waiting::a_closed_channel_says_so,
        waiting::a_wait_for_a_message_names_its_channel,
        waiting::a_reply_is_answered_dropped_or_late,
        waiting::a_lock_admits_one_at_a_time,
        waiting::a_wait_for_a_lock_ends_at_its_deadline,
        waiting::a_published_change_is_seen,
        network::what_is_sent_arrives,
        network::what_is_not_read_is_counted,
        network::much_arrives_whole_both_ways,
        network::the_end_of_a_stream_is_seen,
        network::a_silent_peer_costs_no_more_than_the_deadline,
        network::a_peer_that_does_not_read_is_felt,
        network::nobody_listening_refuses,
        network::an_address_is_listened_on_once,
    ];
    report
}

async fn bounded<B: Backend>(backend: &B, check: impl Future<Output = Outcome>) -> Outcome {
    let mut check = pin!(check);
    let deadline = Deadline::after(backend, CHECK_TIME_MAX);
    match within(backend, deadline, check.as_mut()).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let lines: Vec<String> = backend.registry().snapshot().iter().map(line).collect();
            Err(Broken(format!("hangs; in flight: [{}]", lines.join("; "))))
        }
    }
}

fn line(entry: &Entry) -> String {
    let target = entry.target.as_deref().unwrap_or("-");
    let task = entry.task.as_ref().map_or_else(|| "no task".to_owned(), |task| task.name.to_string());
    format!("{} of {target} by {task} at {}", entry.what, entry.site)
}
