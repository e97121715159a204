//! What the simulated broker logs, with the time of its world.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::kernel::Kernel;

thread_local! {
    static HERE: RefCell<Option<Arc<Kernel>>> = const { RefCell::new(None) };
}

/// Logs of this thread show this kernel's time from now on.
pub(super) fn show_time_of(kernel: Option<Arc<Kernel>>) {
    HERE.with(|here| *here.borrow_mut() = kernel);
}

/// Time, level, where, what. The executor's own spans say nothing about the broker and are left out.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        HERE.with(|here| match here.borrow().as_ref() {
            Some(kernel) => write!(writer, "{:>12.6} s", kernel.now() as f64 / 1e9),
            None => write!(writer, "{:>14}", "-"),
        })?;
        write!(writer, " {:>5} {}: ", event.metadata().level(), event.metadata().target())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Lets everything at or above the filter (`info`, `broker::journal=debug`) go to stderr, for the whole process.
pub fn to_stderr(filter: &str) -> Result<(), String> {
    let filter: Targets = filter.parse().map_err(|error| format!("{error}"))?;
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).event_format(Line);
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|error| error.to_string())
}
