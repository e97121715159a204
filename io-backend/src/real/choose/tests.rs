use std::time::Duration;

use super::{DiskChoice, DiskKind, DiskReport, faster, median};
use crate::real::RealBackend;

#[test]
fn the_faster_disk_is_taken_and_threads_in_doubt() {
    for (threads, uring, expected) in [
        (Some(131), Some(335), DiskKind::Threads),
        (Some(335), Some(131), DiskKind::Uring),
        (Some(200), Some(200), DiskKind::Threads),
        (Some(9_000), None, DiskKind::Threads),
        (None, Some(9_000), DiskKind::Uring),
        (None, None, DiskKind::Threads),
    ] {
        assert_eq!(faster(threads, uring), expected, "{threads:?} {uring:?}");
    }
}

#[test]
fn the_median_is_one_of_the_samples() {
    let us = |samples: &[u64]| median(samples.iter().map(|us| Duration::from_micros(*us)).collect());
    assert_eq!(us(&[]), None);
    assert_eq!(us(&[7]), Some(7));
    assert_eq!(us(&[900, 100, 200]), Some(200));
}

#[test]
fn the_report_is_one_line_with_both_figures_or_the_reason() {
    let report = |chosen, threads_p50_us, uring_p50_us, refused: Option<&str>| {
        let uring_refused = refused.map(str::to_owned);
        DiskReport { chosen, threads_p50_us, uring_p50_us, uring_refused }.to_string()
    };
    let threads = DiskKind::Threads;
    assert_eq!(report(threads, Some(131), Some(335), None), "threads (sync p50 131 us, uring 335 us)");
    assert_eq!(
        report(DiskKind::Uring, Some(335), Some(131), None),
        "uring (sync p50 131 us, threads 335 us)"
    );
    assert_eq!(report(threads, Some(131), None, None), "threads (sync p50 131 us)");
    assert_eq!(
        report(threads, Some(131), None, Some("forbidden: allow it")),
        "threads (sync p50 131 us, no io_uring: forbidden: allow it)"
    );
    assert_eq!(report(threads, None, None, None), "threads (sync p50 unknown)");
}

#[test]
fn a_choice_is_read_as_it_is_written() {
    for choice in [DiskChoice::Auto, DiskChoice::Uring, DiskChoice::Threads] {
        assert_eq!(choice.to_string().parse(), Ok(choice));
    }
    assert!("urnig".parse::<DiskChoice>().is_err_and(|text| text.contains("urnig")));
}

#[test]
fn auto_measures_what_there_is_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("made");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (backend, report) =
        runtime.block_on(async { RealBackend::start(DiskChoice::Auto, &data_dir) }).unwrap();
    assert!(report.threads_p50_us.is_some(), "{report}");
    assert!(report.uring_p50_us.is_some() || report.uring_refused.is_some(), "{report}");
    assert_eq!(backend.parts.disk.kind(), report.chosen);
    assert_eq!(std::fs::read_dir(&data_dir).unwrap().count(), 0);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"no directory").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async { RealBackend::start(DiskChoice::Auto, &file).map(|_| ()) });
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains(&*file.to_string_lossy()), "{text}");
}

#[test]
fn outside_a_runtime_there_is_no_backend_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    assert!(RealBackend::start(DiskChoice::Threads, dir.path()).is_err());
}
