//! Layers, in every directory of every crate: a module imports only from those that its directory's root file
//! (`lib.rs`, `mod.rs` or `NAME.rs`) declares before it.
//!
//! `crate::`, `super::` and `self::` paths count, in `use` and elsewhere, and so does what a root file re-exports, for the
//! module that it comes from. The root file has its place in the same order: behind the modules that it imports from, before
//! those that import from it. A `pub use` alone is no import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A module, and those below it in their order.
pub struct Module {
    /// From the crate's root, which has an empty path.
    path: Vec<String>,
    file: PathBuf,
    /// The file without tests and comments.
    text: String,
    below: Vec<Module>,
    /// Names of the modules that are compiled for tests only: what imports from them is compiled for tests only, too.
    for_tests: Vec<String>,
    /// What it re-exports from modules below it, and the path there.
    re_exported: BTreeMap<String, Vec<String>>,
}

impl Module {
    /// The crate that this file is the root of.
    pub fn of_crate(root: PathBuf) -> Module {
        Module::read(root, Vec::new())
    }

    fn read(file: PathBuf, path: Vec<String>) -> Module {
        let text = super::shipped_text(&file);
        let mut below = Vec::new();
        let (shipped, for_tests) = declared(&text);
        for name in shipped {
            let stands = super::file_of_module(&file, &name)
                .unwrap_or_else(|| panic!("{} declares {name}, which is not there", file.display()));
            let own = path.iter().cloned().chain([name]).collect();
            below.push(Module::read(stands, own));
        }
        let mut re_exported = BTreeMap::new();
        for statement in statements(&text).filter(|statement| statement.is_public) {
            for to in tree(statement.tree) {
                if let Some(name) = to.last().filter(|_| below.iter().any(|module| module.name() == to[0])) {
                    re_exported.insert(name.clone(), to);
                }
            }
        }
        Module { path, file, text, below, for_tests, re_exported }
    }

    fn name(&self) -> &str {
        self.path.last().map_or("", |name| name)
    }

    fn level(&self, name: &str) -> Option<usize> {
        self.below.iter().position(|module| module.name() == name)
    }

    /// Every module, from the root down.
    fn all(&self) -> Vec<&Module> {
        std::iter::once(self).chain(self.below.iter().flat_map(Module::all)).collect()
    }

    /// The module that a path from here leads to: the last one on it, or the one that what it names comes from.
    fn leads_to<'a>(&'a self, path: &[String]) -> &'a Module {
        let Some((first, rest)) = path.split_first() else { return self };
        match (self.level(first), self.re_exported.get(first)) {
            (Some(level), _) => self.below[level].leads_to(rest),
            (None, Some(to)) => self.leads_to(to),
            (None, None) => self,
        }
    }

    fn leads_to_tests(&self, path: &[String]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        self.for_tests.contains(first)
            || self.level(first).is_some_and(|level| self.below[level].leads_to_tests(rest))
    }

    /// All paths of the crate that the file names, from the crate's root.
    fn imports(&self) -> BTreeSet<Vec<String>> {
        let mut found = BTreeSet::new();
        let text = without_public_uses(&self.text);
        for (at, word) in words(&text) {
            let rest = &text[at..];
            let path = match word {
                "crate" | "super" | "self" if rest[word.len()..].starts_with("::") => tree(rest),
                child if self.level(child).is_some() && rest[word.len()..].starts_with("::") => {
                    tree(rest).into_iter().map(|path| [vec!["self".to_owned()], path].concat()).collect()
                }
                // What is re-exported is used by its bare name.
                named if is_used(&text, at, named) => {
                    let to = self.re_exported.get(named).into_iter();
                    to.map(|to| [vec!["self".to_owned()], to.clone()].concat()).collect()
                }
                _ => Vec::new(),
            };
            found.extend(path.into_iter().map(|path| self.rooted(&path)));
        }
        found
    }

    fn rooted(&self, path: &[String]) -> Vec<String> {
        let mut from = self.path.clone();
        for (index, segment) in path.iter().enumerate() {
            match segment.as_str() {
                "crate" => from.clear(),
                "super" => drop(from.pop()),
                "self" => {}
                _ => return from.into_iter().chain(path[index..].iter().cloned()).collect(),
            }
        }
        from
    }
}

/// The names of the modules that a file declares: those that ship, and those for tests only.
fn declared(text: &str) -> (Vec<String>, Vec<String>) {
    let mut found = (Vec::new(), Vec::new());
    let mut for_tests = false;
    for line in text.lines() {
        if line.starts_with("#[") {
            for_tests |= line.starts_with("#[cfg(") && line.contains("test");
            continue;
        }
        let name = ["mod ", "pub mod ", "pub(crate) mod ", "pub(super) mod "]
            .iter()
            .find_map(|keyword| line.strip_prefix(keyword))
            .and_then(|rest| rest.strip_suffix(';'));
        if let Some(name) = name {
            if for_tests { &mut found.1 } else { &mut found.0 }.push(name.to_owned());
        }
        for_tests = false;
    }
    found
}

struct Statement<'a> {
    is_public: bool,
    tree: &'a str,
    /// The whole of it in the text.
    range: std::ops::Range<usize>,
}

/// The `use` statements of a file that stand at the beginning of a line.
fn statements(text: &str) -> impl Iterator<Item = Statement<'_>> {
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
    starts.filter_map(move |start| {
        let line = &text[start..];
        let (is_public, tree) = ["pub use ", "pub(crate) use ", "pub(super) use "]
            .iter()
            .find_map(|keyword| Some((true, line.strip_prefix(keyword)?)))
            .or_else(|| Some((false, line.strip_prefix("use ")?)))?;
        let end = start + line.find(';')? + 1;
        Some(Statement { is_public, tree, range: start..end })
    })
}

/// The text but for what it re-exports; of a `pub use` that goes upwards, nothing is left out.
fn without_public_uses(text: &str) -> String {
    let mut rest = String::new();
    let mut from = 0;
    for statement in statements(text).filter(|statement| statement.is_public) {
        if ["crate::", "super::"].iter().any(|up| statement.tree.starts_with(up)) {
            continue;
        }
        rest.push_str(&text[from..statement.range.start]);
        from = statement.range.end;
    }
    rest.push_str(&text[from..]);
    rest
}

fn is_of_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Words that begin a path, or stand alone, with where they stand.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].find(is_of_a_word)?;
            let end = text[start..].find(|c| !is_of_a_word(c)).map_or(text.len(), |len| start + len);
            at = end;
            let before = &text[..start];
            if !before.ends_with("::") && !before.ends_with('.') && !before.ends_with('\'') {
                return Some((start, &text[start..end]));
            }
        }
    })
}

/// Whether the word there stands for what it names, as far as that shows: a function is called, and what a line begins
/// with is the name of a field or variant.
fn is_used(text: &str, at: usize, word: &str) -> bool {
    let begins_its_line = text[..at].rsplit('\n').next().unwrap_or_default().trim().is_empty();
    let is_type = word.starts_with(|c: char| c.is_ascii_uppercase());
    if is_type { !begins_its_line } else { text[at + word.len()..].starts_with('(') }
}

/// The paths of a use tree, or the one path, that `text` begins with. A glob stands for its module.
fn tree(text: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    branch(text, &mut Vec::new(), &mut paths);
    paths
}

/// Follows one branch and returns what comes after it.
fn branch<'a>(text: &'a str, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'a str {
    let mut text = text.trim_start();
    let depth = path.len();
    loop {
        if let Some(group) = text.strip_prefix('{') {
            text = group.trim_start();
            while !text.starts_with('}') && !text.is_empty() {
                text = branch(text, path, paths).trim_start();
                text = text.strip_prefix(',').unwrap_or(text).trim_start();
            }
            text = text.strip_prefix('}').unwrap_or(text);
            break;
        }
        let end = text.find(|c| !is_of_a_word(c)).unwrap_or(text.len());
        let word = &text[..end];
        if word.is_empty() {
            text = text.strip_prefix('*').unwrap_or(text);
            paths.push(path.clone());
            break;
        }
        // `name::{self, ...}` is the module itself.
        if word != "self" || path.is_empty() {
            path.push(word.to_owned());
        }
        text = &text[end..];
        match text
            .strip_prefix("::")
            .filter(|rest| rest.starts_with(|c| is_of_a_word(c) || c == '{' || c == '*'))
        {
            Some(rest) => text = rest,
            None => {
                paths.push(path.clone());
                text = text.strip_prefix(" as ").map_or(text, |alias| alias.trim_start_matches(is_of_a_word));
                break;
            }
        }
    }
    path.truncate(depth);
    text
}

/// What goes upwards in a crate, in words.
pub fn upward_imports(whole: &Module) -> Vec<String> {
    let mut found = BTreeSet::new();
    // By directory: the first module that imports from its root file, and the last that this imports from.
    let mut first_above: BTreeMap<&[String], &Module> = BTreeMap::new();
    let mut last_below: BTreeMap<&[String], &Module> = BTreeMap::new();
    for module in whole.all() {
        for import in module.imports().iter().filter(|import| !whole.leads_to_tests(import)) {
            let other = whole.leads_to(import);
            let shared = module.path.iter().zip(&other.path).take_while(|(one, two)| one == two).count();
            let directory = whole.leads_to(&module.path[..shared]);
            match (module.path.get(shared), other.path.get(shared)) {
                (None, None) => {}
                (Some(own), None) => {
                    let first = first_above.entry(&directory.path).or_insert(module);
                    if directory.level(own) < directory.level(&first.path[shared]) {
                        *first = module;
                    }
                }
                (None, Some(theirs)) => {
                    let last = last_below.entry(&directory.path).or_insert(other);
                    if directory.level(theirs) > directory.level(&last.path[shared]) {
                        *last = other;
                    }
                }
                (Some(own), Some(theirs)) => {
                    if directory.level(theirs) > directory.level(own) {
                        found.insert(format!(
                            "{} imports from {}, which stands above it: see the order in {}",
                            module.file.display(),
                            other.file.display(),
                            directory.file.display()
                        ));
                    }
                }
            }
        }
    }
    for (path, above) in first_above {
        let directory = whole.leads_to(path);
        let level = |module: &Module| directory.level(&module.path[path.len()]);
        if let Some(below) = last_below.get(path).filter(|below| level(below) >= level(above)) {
            found.insert(format!(
                "{} imports from {}, which imports from {}, and that stands no lower",
                above.file.display(),
                directory.file.display(),
                below.file.display()
            ));
        }
    }
    found.into_iter().collect()
}

#[test]
fn a_use_tree_is_read_to_its_leaves() {
    let paths = |text: &str| -> Vec<String> { tree(text).iter().map(|path| path.join("::")).collect() };
    assert_eq!(paths("crate::log::Log;"), ["crate::log::Log"]);
    assert_eq!(
        paths("super::{a, b::{self, C as D}, e::*};"),
        ["super::a", "super::b", "super::b::C", "super::e"]
    );
    assert_eq!(paths("super::wire::size(x)"), ["super::wire::size"]);
    assert_eq!(paths("crate::Name<T>"), ["crate::Name"]);
}

#[test]
fn modules_for_tests_only_stand_in_no_layer() {
    let text = "mod a;\npub(crate) mod b;\n#[cfg(test)]\n#[path = \"c_tests.rs\"]\nmod tests;\nmod d;\n";
    let (shipped, for_tests) = declared(text);
    assert_eq!((shipped, for_tests), (["a", "b", "d"].map(String::from).into(), vec!["tests".to_owned()]));
}
