use std::time::Duration;

use io_backend::real::{DiskChoice, RealBackend};

use super::*;
use crate::journal::fake::Fake;

/// Runs `test` with a real backend as one process would have it.
fn process<T>(test: impl AsyncFnOnce(RealBackend) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (backend, _) = RealBackend::start(DiskChoice::Threads, scratch.path()).unwrap();
        test(backend).await
    })
}

async fn take(backend: &RealBackend, directory: &Path, node: i32) -> Result<Identity, IdentityError> {
    let deadline = Deadline::after(backend, Duration::from_secs(30));
    take_directory(backend, directory, BrokerId(node), deadline).await
}

fn start(directory: &Path, node: i32) -> Result<Identity, IdentityError> {
    process(async |backend| take(&backend, directory, node).await)
}

/// Who a later start of the directory is, given what only that start has drawn.
fn later(first: &Identity, start: &Identity, number: u64) -> Identity {
    let incarnation = Incarnation(number);
    Identity { incarnation, incarnation_id: start.incarnation_id, ..first.clone() }
}

fn refusal(directory: &Path, node: i32) -> String {
    let error = start(directory, node).unwrap_err();
    assert_eq!(error.exit_status(), ExitStatus::DataDirectory);
    error.to_string()
}

#[test]
fn each_start_keeps_who_it_is_and_has_a_new_incarnation() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("deep/inside");
    let first = start(&directory, 7).unwrap();
    let second = start(&directory, 7).unwrap();
    assert_eq!(first.incarnation, Incarnation(1));
    assert_eq!(second, later(&first, &second, 2));
    assert_ne!(second.incarnation_id, first.incarnation_id);
    assert_eq!(first.cluster_id.len(), 22);
    let elsewhere = start(&home.path().join("other"), 7).unwrap();
    assert_ne!(elsewhere.storage, first.storage);
    assert_ne!(elsewhere.cluster_id, first.cluster_id);
}

#[test]
fn a_start_on_a_full_disk_counts_on_and_a_torn_slot_is_the_one_that_was_never_used() {
    let fake = Fake::new();
    let take = || {
        let soon = Deadline::after(&fake, Duration::from_secs(9));
        fake.run(take_directory(&fake, Path::new("/data"), BrokerId(1), soon)).unwrap().incarnation.0
    };
    assert_eq!(take(), 1);
    fake.world().full = true;
    for start in 2..6 {
        assert_eq!(take(), start);
        fake.lose_power(|_, _| false);
    }
    fake.damage(Path::new("/data/incarnation"), |bytes| bytes[SLOT_BYTES + 9] ^= 1);
    assert_eq!(take(), 5, "slot 5 is not whole: what it says was not used");
    fake.damage(Path::new("/data/incarnation"), |bytes| bytes.fill(0));
    let soon = Deadline::after(&fake, Duration::from_secs(9));
    let error = fake.run(take_directory(&fake, Path::new("/data"), BrokerId(1), soon)).unwrap_err();
    assert!(error.to_string().contains("neither of its slots is whole"), "{error}");
}

#[test]
fn a_directory_of_format_version_1_goes_on_from_its_incarnation() {
    let home = tempfile::tempdir().unwrap();
    let first = start(home.path(), 1).unwrap();
    let stored = format!(
        "{{\"format\":\"chronik-data\",\"format_version\":1,\"storage_id\":\"{}\",\"node_id\":1,\"cluster_id\":\"{}\",\
         \"incarnation\":41}}",
        first.storage.0, first.cluster_id
    );
    std::fs::write(home.path().join(FILE), stored).unwrap();
    std::fs::remove_file(home.path().join(INCARNATION)).unwrap();
    for start_number in 42..45 {
        let identity = start(home.path(), 1).unwrap();
        assert_eq!(identity, later(&first, &identity, start_number));
    }
    let stored = std::fs::read_to_string(home.path().join(FILE)).unwrap();
    assert!(stored.contains("\"format_version\": 4") && !stored.contains("incarnation"), "{stored}");
}

/// A digit of the storage's id that has changed would be a storage that leads nothing.
#[test]
fn no_changed_bit_makes_another_identity() {
    let fake = Fake::new();
    let take = || {
        let soon = Deadline::after(&fake, Duration::from_secs(9));
        fake.run(take_directory(&fake, Path::new("/data"), BrokerId(1), soon))
    };
    let first = take().unwrap();
    let file = Path::new("/data").join(FILE);
    let bytes = fake.world().files[&file].now.clone();
    let mut refused = 0;
    for bit in 0..bytes.len() * 8 {
        fake.damage(&file, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        match take() {
            // White space, say.
            Ok(identity) => {
                assert_eq!(identity, later(&first, &identity, identity.incarnation.0), "{bit}");
            }
            Err(error) => {
                refused += 1;
                assert!(
                    error.to_string().contains(FILE) || matches!(error, IdentityError::OtherNode { .. }),
                    "{error}"
                );
            }
        }
        fake.damage(&file, |now| now.clone_from(&bytes));
    }
    assert!(refused * 10 > bytes.len() * 8 * 8, "{refused} of {}", bytes.len() * 8);
}

#[test]
fn an_identity_without_a_checksum_is_given_one_where_there_is_room() {
    let fake = Fake::new();
    let take = || {
        let soon = Deadline::after(&fake, Duration::from_secs(9));
        fake.run(take_directory(&fake, Path::new("/data"), BrokerId(1), soon)).unwrap()
    };
    let first = take();
    let file = Path::new("/data").join(FILE);
    let old = format!(
        "{{\"format\":\"chronik-data\",\"format_version\":2,\"storage_id\":\"{}\",\"node_id\":1,\"cluster_id\":\"{}\"}}",
        first.storage.0, first.cluster_id
    );
    fake.damage(&file, |bytes| *bytes = old.clone().into_bytes());
    let has_checksum = || String::from_utf8_lossy(&fake.world().files[&file].now).contains("crc32c");
    fake.world().full = true;
    let second = take();
    assert_eq!(second, later(&first, &second, 2));
    assert!(!has_checksum());
    fake.world().full = false;
    let third = take();
    assert_eq!(third, later(&first, &third, 3));
    assert!(has_checksum());
}

#[test]
fn two_processes_cannot_have_one_directory() {
    let home = tempfile::tempdir().unwrap();
    process(async |first| {
        take(&first, home.path(), 1).await.unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let (second, _) = RealBackend::start(DiskChoice::Threads, scratch.path()).unwrap();
        let error = take(&second, home.path(), 1).await.unwrap_err();
        assert!(matches!(error, IdentityError::Locked(_)), "{error}");
        assert!(error.to_string().contains("--data-dir"), "{error}");
    });
    assert_eq!(start(home.path(), 1).unwrap().incarnation, Incarnation(2), "the refused start used none up");
}

#[test]
fn a_foreign_directory_is_left_untouched() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("thesis.tex"), "text").unwrap();
    let text = refusal(home.path(), 1);
    assert!(text.contains("thesis.tex") && text.contains("--data-dir"), "{text}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn traces_of_an_interrupted_first_start_are_not_foreign() {
    let home = tempfile::tempdir().unwrap();
    for name in [LOCK, "identity.json.new", INCARNATION, ".disk-probe-17"] {
        std::fs::write(home.path().join(name), "").unwrap();
    }
    std::fs::create_dir(home.path().join("lost+found")).unwrap();
    assert_eq!(start(home.path(), 1).unwrap().incarnation, Incarnation(1));
}

#[test]
fn the_directory_of_another_node_is_refused() {
    let home = tempfile::tempdir().unwrap();
    start(home.path(), 2).unwrap();
    let text = refusal(home.path(), 3);
    assert!(text.contains("belongs to node 2") && text.contains("--node-id 2"), "{text}");
}

#[test]
fn a_damaged_foreign_or_newer_identity_says_what_it_is() {
    let table = [
        ("", "cannot be read"),
        ("{\"format\":\"chronik-data\"", "cannot be read"),
        ("{\"format\":\"recipes\",\"format_version\":1}", "its format is 'recipes'"),
        ("{\"format\":\"chronik-data\",\"format_version\":1}", "missing field"),
        ("{\"format\":\"chronik-data\",\"format_version\":5,\"new\":[]}", "start a newer chronik"),
        (
            "{\"format\":\"chronik-data\",\"format_version\":1,\"storage_id\":\"x\",\"node_id\":1,\"cluster_id\":\"c\",\
             \"incarnation\":1}",
            "cannot be read",
        ),
    ];
    for (content, part) in table {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(FILE);
        std::fs::write(&path, content).unwrap();
        let text = refusal(home.path(), 1);
        assert!(text.contains(part) && text.contains(FILE), "{content}: {text}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content, "nothing was changed");
    }
}

#[test]
fn a_cluster_id_is_base_64_as_others_write_it() {
    assert_eq!(url_safe(Uuid::nil()), "AAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(url_safe(Uuid::from_u128(u128::MAX)), "_____________________w");
    // Of the bytes 0 to 15, as any base 64 encoder gives it.
    assert_eq!(
        url_safe(Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f)),
        "AAECAwQFBgcICQoLDA0ODw"
    );
}
