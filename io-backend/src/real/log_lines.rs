//! The log's lines to standard error, written by a thread of its own.
//!
//! Whoever logs waits for nobody: a pipe that is not emptied, or a file on a disk that stands still or is full, holds up that thread alone, and an
//! end that is closed ends nothing. A line that finds no room is lost, and the next one that does says how many were.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Lines that wait; some 200 bytes each.
const WAITING_MAX: usize = 4_096;

static STDERR: OnceLock<Lines> = OnceLock::new();

/// Begins to write what [`LogLine`] takes. Before, each writes for itself.
///
/// # Errors
/// There is no thread to be had.
pub fn start() -> io::Result<()> {
    let lines = Lines::to(io::stderr())?;
    let _ = STDERR.set(lines);
    Ok(())
}

/// Waits until what was logged is written, for as long as that.
pub fn flush(within: Duration) {
    if let Some(lines) = STDERR.get() {
        lines.flush(within);
    }
}

/// Where one event of the log is written to, as a whole.
#[derive(Debug)]
pub struct LogLine;

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match STDERR.get() {
            Some(lines) => lines.put(line),
            None => drop(io::stderr().write_all(line)),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Input {
    Line(Vec<u8>),
    /// Answered when all that came before is written.
    Flush(SyncSender<()>),
}

struct Lines {
    waiting: SyncSender<Input>,
    lost: AtomicU64,
}

impl Lines {
    fn to(out: impl Write + Send + 'static) -> io::Result<Lines> {
        let (waiting, inputs) = sync_channel(WAITING_MAX);
        std::thread::Builder::new().name("log".into()).spawn(move || write_all(inputs, out))?;
        Ok(Lines { waiting, lost: AtomicU64::new(0) })
    }

    fn put(&self, line: &[u8]) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut told = Vec::with_capacity(line.len());
        if lost > 0 {
            let _ = writeln!(
                told,
                "{lost} lines of the log are lost here: standard error does not take them in time"
            );
        }
        told.extend_from_slice(line);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.waiting.try_send(Input::Line(told))
        {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }

    fn flush(&self, within: Duration) {
        let (done, written) = sync_channel(1);
        // Where there is no room for it, nobody takes what waits.
        if self.waiting.try_send(Input::Flush(done)).is_ok() {
            let _ = written.recv_timeout(within);
        }
    }
}

fn write_all(inputs: Receiver<Input>, mut out: impl Write) {
    for input in inputs {
        match input {
            // There may be space again for the next one.
            Input::Line(line) => drop(out.write_all(&line)),
            Input::Flush(done) => drop(done.try_send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Takes a line whenever it is told to.
    struct Slow {
        go_on: Receiver<()>,
        taken: std::sync::mpsc::Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.go_on.recv();
            let _ = self.taken.send(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_logs_does_not_wait_and_what_is_lost_is_counted() {
        let ((go_on, waits), (taken, lines)) = (channel(), channel());
        let log = Lines::to(Slow { go_on: waits, taken }).unwrap();
        let count = WAITING_MAX + 100;
        (0..count).for_each(|n| log.put(format!("line {n}\n").as_bytes()));
        log.flush(Duration::from_millis(1));
        drop(go_on);
        // There is room from then on.
        assert_eq!(lines.recv().unwrap(), "line 0\n");
        log.put(b"the next\n");
        let written = lines.iter().take_while(|line| line.starts_with("line ")).count() + 1;
        assert!((WAITING_MAX..count).contains(&written), "{written}");
        log.flush(Duration::from_secs(10));
        log.put(b"the last\n");
        assert_eq!(lines.recv().unwrap(), "the last\n", "nothing is lost any more");
    }

    #[test]
    fn an_end_that_is_closed_ends_nothing() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = Lines::to(Closed).unwrap();
        for _ in 0..3 {
            log.put(b"a line\n");
            log.flush(Duration::from_secs(10));
        }
    }
}
