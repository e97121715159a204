//! Lines that are read while others are sent, until they end, or a signal ends them.
//!
//! A thread reads ahead, so that who takes the lines learns when no more wait, and hears of a signal while nothing comes.

#![allow(clippy::disallowed_methods, reason = "the command line reads by itself, and has no backend")]

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use io_backend::ExitStatus;
use io_backend::real::exit_now;

use super::output::warn;
use crate::stop::StopSignals;

/// What is read at once, and how many of these are read ahead: more than a batch has.
const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 16;
/// Whoever sends a signal sees nothing for so long, where what was read takes longer to write.
const PATIENCE: Duration = Duration::from_secs(1);
/// No node takes such a record.
const LINE_BYTES_MAX: usize = 256 << 20;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Its number, from one on, and its text, with the end of the line where it has one.
    Line(u64, Bytes),
    /// No whole line waits; to ask again is to wait for one.
    Pause,
    End,
    /// There is more that is not read, and why not.
    Broken(String),
}

enum Event {
    Piece(Vec<u8>),
    End,
    Unreadable(io::Error),
    /// A signal came: who waits is to look.
    Signal,
}

pub struct Input {
    events: Receiver<Event>,
    /// What was read and not given out.
    text: BytesMut,
    /// So much of it has no end of a line.
    searched: usize,
    /// Of the line that is given out next.
    number: u64,
    has_ended: bool,
    has_paused: bool,
    stopped: Arc<OnceLock<&'static str>>,
}

impl Input {
    /// Begins to read, and to listen for what ends the process: the first signal ends the input, a second one the process.
    pub fn open(source: impl Read + Send + 'static) -> io::Result<Input> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = {
            let _within = runtime.enter();
            StopSignals::listen()?
        };
        let (input, events) = Input::of(source)?;
        let stopped = input.stopped.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            stop(&stopped, &events, runtime.block_on(signals.received()));
            let again = runtime.block_on(async {
                if let Ok(again) = tokio::time::timeout(PATIENCE, signals.received()).await {
                    return again;
                }
                warn("what was read is still being written; another signal ends it at once");
                signals.received().await
            });
            warn(&format!("{again} after another signal: it ends at once, and what was being written may be there or not"));
            exit_now(ExitStatus::Other as i32);
        })?;
        Ok(input)
    }

    fn of(source: impl Read + Send + 'static) -> io::Result<(Input, SyncSender<Event>)> {
        let (sender, events) = sync_channel(PIECES);
        let stopped = Arc::new(OnceLock::new());
        let (to, until) = (sender.clone(), stopped.clone());
        thread::Builder::new().name("input".into()).spawn(move || read(source, &to, &until))?;
        let input = Input {
            events,
            text: BytesMut::new(),
            searched: 0,
            number: 1,
            has_ended: false,
            has_paused: false,
            stopped,
        };
        Ok((input, sender))
    }

    pub fn next(&mut self) -> Next {
        loop {
            if let Some(at) = self.text[self.searched..].iter().position(|byte| *byte == b'\n') {
                return self.line(self.searched + at + 1);
            }
            self.searched = self.text.len();
            if self.text.len() > LINE_BYTES_MAX {
                return Next::Broken(format!("line {} is too long", self.number));
            }
            if self.has_ended {
                return if self.text.is_empty() { Next::End } else { self.line(self.text.len()) };
            }
            let event = match self.events.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Disconnected) => Event::End,
                // What was read before the signal has been given out.
                Err(TryRecvError::Empty) if self.stopped.get().is_some() => return self.stopped(),
                Err(TryRecvError::Empty) if !self.has_paused => {
                    self.has_paused = true;
                    return Next::Pause;
                }
                Err(TryRecvError::Empty) => self.events.recv().unwrap_or(Event::End),
            };
            match event {
                Event::Piece(piece) => {
                    self.text.extend_from_slice(&piece);
                    self.has_paused = false;
                }
                Event::End => self.has_ended = true,
                Event::Unreadable(error) => {
                    return Next::Broken(format!("cannot read line {}: {error}", self.number));
                }
                Event::Signal => {}
            }
        }
    }

    fn line(&mut self, length: usize) -> Next {
        let line = Next::Line(self.number, self.text.split_to(length).freeze());
        (self.number, self.searched) = (self.number + 1, 0);
        line
    }

    fn stopped(&self) -> Next {
        let signal = self.stopped.get().copied().unwrap_or_default();
        let begun = match self.text.is_empty() {
            true => String::new(),
            false => format!("; line {} had begun, and is not written", self.number),
        };
        Next::Broken(format!("{signal} came before the input ended{begun}"))
    }
}

fn stop(stopped: &OnceLock<&'static str>, events: &SyncSender<Event>, signal: &'static str) {
    let _ = stopped.set(signal);
    // Where there is no room for it, nobody waits.
    let _ = events.try_send(Event::Signal);
}

fn read(mut source: impl Read, events: &SyncSender<Event>, stopped: &OnceLock<&'static str>) {
    let mut piece = vec![0; PIECE_BYTES];
    while stopped.get().is_none() {
        let event = match source.read(&mut piece) {
            Ok(0) => Event::End,
            Ok(read) => Event::Piece(piece[..read].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Event::Unreadable(error),
        };
        let is_last = !matches!(event, Event::Piece(_));
        if events.send(event).is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Reads what is sent to it, and waits for more.
    struct Script(Receiver<io::Result<&'static [u8]>>);

    impl Read for Script {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Ok(piece) = self.0.recv() else { return Ok(0) };
            let piece = piece?;
            into[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn script() -> (Sender<io::Result<&'static [u8]>>, Input, SyncSender<Event>) {
        let (write, pieces) = channel();
        let (input, events) = Input::of(Script(pieces)).unwrap();
        (write, input, events)
    }

    /// The thread that reads may not have come to it yet.
    fn after_pauses(input: &mut Input) -> Next {
        (0..10).map(|_| input.next()).find(|next| *next != Next::Pause).unwrap()
    }

    fn line(number: u64, text: &'static str) -> Next {
        Next::Line(number, Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn whole_lines_are_not_kept_back_for_one_that_has_begun() {
        let (write, mut input, _events) = script();
        write.send(Ok(b"a\nb\nc")).unwrap();
        assert_eq!(after_pauses(&mut input), line(1, "a\n"));
        assert_eq!(input.next(), line(2, "b\n"));
        assert_eq!(input.next(), Next::Pause);
        write.send(Ok(b"d\n")).unwrap();
        assert_eq!(input.next(), line(3, "cd\n"));
        assert_eq!(input.next(), Next::Pause);
        write.send(Ok(b"no end")).unwrap();
        drop(write);
        assert_eq!(after_pauses(&mut input), line(4, "no end"));
        assert_eq!((input.next(), input.next()), (Next::End, Next::End));
    }

    #[test]
    fn a_signal_ends_the_input_behind_what_was_read() {
        let (write, mut input, events) = script();
        write.send(Ok(b"a\nb\nc")).unwrap();
        assert_eq!(after_pauses(&mut input), line(1, "a\n"));
        stop(&input.stopped, &events, "SIGTERM");
        assert_eq!(input.next(), line(2, "b\n"));
        let why = "SIGTERM came before the input ended; line 3 had begun, and is not written";
        assert_eq!(input.next(), Next::Broken(why.into()));
    }

    #[test]
    fn a_signal_is_heard_while_nothing_comes() {
        let (_write, mut input, events) = script();
        assert_eq!(input.next(), Next::Pause);
        let stopped = input.stopped.clone();
        let signal = thread::spawn(move || stop(&stopped, &events, "SIGINT"));
        assert_eq!(input.next(), Next::Broken("SIGINT came before the input ended".into()));
        signal.join().unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_told_behind_what_could() {
        let (write, mut input, _events) = script();
        write.send(Ok(b"a\n")).unwrap();
        write.send(Err(io::Error::other("gone"))).unwrap();
        assert_eq!(after_pauses(&mut input), line(1, "a\n"));
        assert_eq!(after_pauses(&mut input), Next::Broken("cannot read line 2: gone".into()));
    }
}
