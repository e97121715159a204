//! A stdout that takes nothing: nobody reads it, or the device is full.

use std::fs::OpenOptions;
use std::io::pipe;
use std::process::{Command, Output, Stdio};

fn ended(arguments: &[&str], stdout: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronik-sim"));
    command.args(arguments).stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

fn nobody_reads(arguments: &[&str]) -> Output {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    ended(arguments, writer)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_closed_pipe_ends_a_command_quietly_and_with_what_it_found() {
    let directory = std::env::temp_dir().join(format!("chronik-sim-output-{}", std::process::id()));
    let record = directory.join("r.json").display().to_string();
    for arguments in [&["list"][..], &["run", "smoke/single-node", "--seed", "1", "--json", &record]] {
        let output = nobody_reads(arguments);
        assert_eq!((output.status.code(), text(&output).as_str()), (Some(0), ""), "{arguments:?}");
    }
    assert_eq!(
        nobody_reads(&["replay", &record]).status.code(),
        Some(0),
        "the record was written all the same"
    );
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_full_device_is_said_and_has_a_status_of_its_own() {
    for arguments in [&["list"][..], &["run", "smoke/single-node", "--seed", "1"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = ended(arguments, full);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(17), "{arguments:?}: {said}");
        assert!(said.starts_with("chronik-sim: cannot write to stdout: No space left"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
