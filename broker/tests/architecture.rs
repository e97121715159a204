//! The shape of the workspace, enforced: who may depend on whom, what must not be said where, and every wait
//! that has no deadline.

#[path = "architecture/layers.rs"]
mod layers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use layers::Module;

/// Crates whose modules stand in layers, in every directory in the order in which its root file names them.
const LAYERED: [&str; 4] = ["io-backend", "broker", "reports", "sim"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_path_buf()
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

/// Where the module `name` that is declared in the file `from` stands: a file, or a directory with a `mod.rs`.
fn file_of_module(from: &Path, name: &str) -> Option<PathBuf> {
    let text = read(from);
    let declared = each_after(&text, "#[path = \"", &[';']).filter_map(|one| one.split_once("\"]\n"));
    if let Some((file, _)) = declared.into_iter().find(|(_, rest)| rest.trim() == format!("mod {name}")) {
        return Some(from.with_file_name(file));
    }
    let stem = from.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let beside = from.parent().expect("a directory");
    let below =
        if ["lib", "main", "mod"].contains(&&*stem) { beside.to_path_buf() } else { beside.join(stem) };
    let places = [
        below.join(format!("{name}.rs")),
        below.join(name).join("mod.rs"),
        beside.join(format!("{name}.rs")),
    ];
    places.into_iter().find(|path| path.exists())
}

/// What stands between `before` and the next of `ends`, at each place.
fn each_after<'a>(text: &'a str, before: &'a str, ends: &'a [char]) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).map(move |rest| rest.split(ends).next().unwrap_or_default())
}

/// The text of a file without its tests and comments.
fn shipped_text(path: &Path) -> String {
    let text = read(path);
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = shipped.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Sources that are not compiled for tests only: those whose declaration does not say `#[cfg(test)]`.
fn shipped_sources(directory: &Path) -> Vec<PathBuf> {
    let all = sources(directory);
    let mut tests = BTreeSet::new();
    for path in &all {
        let text = read(path);
        for declared in each_after(&text, "#[cfg(test)]\n", &[';']) {
            let (attribute, declared) = match declared.trim_start().strip_prefix("#[path = \"") {
                Some(named) => named.split_once("\"]").map_or((None, ""), |(file, rest)| (Some(file), rest)),
                None => (None, declared),
            };
            let declared = declared.trim();
            let Some(name) =
                ["mod ", "pub mod ", "pub(crate) mod "].iter().find_map(|m| declared.strip_prefix(m))
            else {
                continue;
            };
            let file = match attribute {
                Some(file) => Some(path.with_file_name(file)),
                None => file_of_module(path, name),
            };
            tests.extend(file);
        }
    }
    let is_test = |path: &PathBuf| {
        tests.contains(path) || tests.iter().any(|test| path.starts_with(test.with_extension("")))
    };
    all.into_iter().filter(|path| !is_test(path)).collect()
}

#[test]
fn modules_import_only_what_stands_before_them() {
    let libraries = LAYERED.map(|package| root().join(package).join("src/lib.rs"));
    let binary = root().join("broker/src/main.rs");
    let crates = libraries.into_iter().chain([binary]).map(Module::of_crate);
    let upward: Vec<String> = crates.flat_map(|whole| layers::upward_imports(&whole)).collect();
    assert!(upward.is_empty(), "{}", upward.join("\n"));
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
        // The command line starts the runtime, reads the configuration file, runs nodes as processes, and is a client of others.
        if path.ends_with("src/main.rs") || path.starts_with(root().join("broker/src/main")) {
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
