//! The shape of the workspace, enforced: who may depend on whom, what must not be said where, and every wait
//! that has no deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust sources below a directory, sorted.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    for entry in entries {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Sources that are compiled for tests only stand in files of their own, and are named so.
fn shipped_sources(directory: &Path) -> Vec<PathBuf> {
    let is_test = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name == "tests.rs" || name.ends_with("_tests.rs")
    };
    sources(directory).into_iter().filter(|path| !is_test(path)).collect()
}

fn dependencies_of_ours(package: &str) -> BTreeSet<String> {
    let manifest: toml::Table = read(&root().join(package).join("Cargo.toml")).parse().expect("a manifest");
    let ours = ["io-backend", "broker", "sim", "reports", "bench"];
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|kind| manifest.get(*kind)?.as_table())
        .flat_map(|table| table.keys().cloned())
        .filter(|name| ours.contains(&name.as_str()))
        .collect()
}

#[test]
fn crates_depend_in_one_direction() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("io-backend", &[][..]),
        ("reports", &[][..]),
        ("broker", &["io-backend"][..]),
        ("sim", &["broker", "io-backend", "reports"][..]),
        ("bench", &["reports"][..]),
    ]);
    for (package, may) in allowed {
        for dependency in dependencies_of_ours(package) {
            assert!(may.contains(&dependency.as_str()), "{package} must not depend on {dependency}");
        }
    }
}

#[test]
fn what_ships_knows_nothing_of_the_simulator() {
    for package in ["broker", "io-backend"] {
        let manifest = read(&root().join(package).join("Cargo.toml"));
        assert!(!manifest.contains("madsim"), "{package}/Cargo.toml names madsim");
        for path in sources(&root().join(package).join("src")) {
            let text = read(&path);
            for word in ["madsim", "simulat", "fail_point", "failpoint", "buggify"] {
                if let Some(at) = text.find(word) {
                    let line = text[..at].matches('\n').count() + 1;
                    panic!("{}:{line} says '{word}'", path.display());
                }
            }
        }
    }
}

#[test]
fn sources_touch_the_machine_only_through_the_backend() {
    let banned = [
        "tokio::net",
        "tokio::fs",
        "std::fs::",
        "std::net::Tcp",
        "std::thread::",
        "rand::",
        "tokio::time::",
        "tokio::spawn",
    ];
    for path in shipped_sources(&root().join("broker/src")) {
        // The command line starts the runtime and reads the configuration file.
        if path.ends_with("src/main.rs") {
            continue;
        }
        let text = read(&path);
        let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in shipped.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for word in banned {
                assert!(!line.contains(word), "{}:{} uses {word}", path.display(), number + 1);
            }
        }
    }
}

/// Every wait without a deadline, with the reason it gives. A new one belongs into this list, and into the review.
#[test]
fn every_wait_without_a_deadline_is_listed() {
    let mut found = Vec::new();
    for path in shipped_sources(&root().join("broker/src")) {
        let text = read(&path);
        let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_string();
        assert!(!shipped.contains(".unbounded()"), "{} waits without saying why", path.display());
        let mut rest = shipped.as_str();
        while let Some(at) = rest.find("Unbounded(") {
            rest = &rest[at + "Unbounded(".len()..];
            let Some(quoted) = rest.trim_start().strip_prefix('"') else { continue };
            let reason = quoted.split('"').next().unwrap_or_default();
            let file = path.strip_prefix(root().join("broker/src")).expect("below the root").display();
            found.push(format!("{file}: {reason}"));
        }
    }
    let expected = read(&root().join("broker/tests/waits_without_deadline.txt"));
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!(found, expected, "update broker/tests/waits_without_deadline.txt:\n{}\n", found.join("\n"));
}
