//! What goes to stdout: tables for people, JSON for machines.

use std::io::{self, Write};

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::client::Failure;
use crate::client::failure::CONTROLLER_NEEDS;

/// Between two columns.
const GAP: &str = "  ";
/// In a cell that has nothing to say.
pub const NOTHING: &str = "-";

/// Writes all of it, at once.
pub fn say(text: &str) -> Result<(), Failure> {
    say_to(&mut io::stdout().lock(), text)
}

/// A reader that has left wants no more of it. That is no failure: what a command does, and its status, do not depend on who reads.
fn say_to(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(Failure::Output),
    }
}

/// Says on stderr what was not asked for. Nobody has to read it.
pub fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "chronik: {text}");
}

/// What is listed from metadata is what the last controller knew.
pub fn warn_of_age(has_controller: bool) {
    if !has_controller {
        warn(&format!(
            "no controller is known, so this may be old, with nodes that are down by now: {CONTROLLER_NEEDS}"
        ));
    }
}

/// A document, indented.
pub fn say_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document).map_err(|error| Failure::Output(error.into()))?;
    say(&format!("{text}\n"))
}

/// Rows below headers. A column of numbers stands at its right, all others at their left.
pub struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(headers: &[&'static str]) -> Table {
        Table { headers: headers.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headers.len(), "a row has a cell for each header");
        self.rows.push(cells.iter().map(|cell| visible(cell)).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Each row a line; without rows nothing, not even the headers.
    pub fn text(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let cells = |column: usize| self.rows.iter().map(move |row| row[column].as_str());
        let columns: Vec<(usize, bool)> = self
            .headers
            .iter()
            .enumerate()
            .map(|(column, header)| {
                let widest = cells(column).map(UnicodeWidthStr::width).max().unwrap_or(0);
                let is_of_numbers = cells(column).all(|cell| cell == NOTHING || is_number(cell));
                (widest.max(header.width()), is_of_numbers && cells(column).any(is_number))
            })
            .collect();
        let mut text = String::new();
        let headers = self.headers.iter().map(|header| header.to_string()).collect();
        for row in std::iter::once(&headers).chain(&self.rows) {
            let mut line = String::new();
            for (cell, (width, is_right)) in row.iter().zip(&columns) {
                let space = " ".repeat(width - cell.width());
                match is_right {
                    true => line.extend([space.as_str(), cell, GAP]),
                    false => line.extend([cell, space.as_str(), GAP]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn is_number(cell: &str) -> bool {
    cell.parse::<i64>().is_ok()
}

/// Without what a terminal would take for a command: names of groups and clients are chosen by others.
fn visible(cell: &str) -> String {
    match cell {
        "" => NOTHING.to_owned(),
        _ => cell
            .chars()
            .flat_map(|one| if one.is_control() { one.escape_default().collect() } else { vec![one] })
            .collect(),
    }
}

/// Numbers with commas: `1,2,3`.
pub fn list(numbers: &[i32]) -> String {
    numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

pub fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or(NOTHING.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[[&str; 3]]) -> String {
        let mut table = Table::new(&["TOPIC", "LAG", "CLIENT"]);
        rows.iter().for_each(|row| table.row(row.iter().map(|cell| cell.to_string()).collect()));
        table.text()
    }

    /// Takes nothing, for this reason.
    struct Refusing(io::ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_left_is_no_failure_and_a_full_disk_is_one() {
        assert!(say_to(&mut Refusing(io::ErrorKind::BrokenPipe), "told\n").is_ok());
        assert!(say_to(&mut Refusing(io::ErrorKind::StorageFull), "told\n").is_err());
    }

    #[test]
    fn columns_are_as_wide_as_what_is_widest_in_them() {
        let text = table(&[["orders", "5", "a"], ["a-topic-with-a-long-name", "1234567", ""]]);
        let lines = [
            "TOPIC                         LAG  CLIENT",
            "orders                          5  a",
            "a-topic-with-a-long-name  1234567  -",
        ];
        assert_eq!(text, lines.join("\n") + "\n");
    }

    #[test]
    fn what_a_terminal_shows_wide_counts_as_wide() {
        let text = table(&[["注文", "x", "ü"], ["ab", "x", "é"]]);
        assert_eq!(text, "TOPIC  LAG  CLIENT\n注文   x    ü\nab     x    é\n");
    }

    #[test]
    fn control_letters_are_shown_and_not_obeyed() {
        let text = table(&[["a\u{1b}[2Jb\n", "-", "-"]]);
        assert_eq!(text, "TOPIC          LAG  CLIENT\na\\u{1b}[2Jb\\n  -    -\n");
    }

    #[test]
    fn a_table_without_rows_is_nothing() {
        assert_eq!(table(&[]), "");
    }
}
