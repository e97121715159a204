//! Directories: what names there are, which of them are durable, and the changes in between.
//!
//! A change is durable once its directory was synced. Syncing a directory also makes the directory itself
//! and its parents durable, as on journaling file systems, but never a file's name in another one. At a power
//! loss each directory keeps a prefix of its un-synced changes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::streams::Stream;

/// Number of a file, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inode(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    File(Inode),
    Dir,
}

type Tree = BTreeMap<PathBuf, Named>;

#[derive(Clone, Debug)]
struct Pending {
    number: u64,
    /// Whose sync makes it durable.
    dir: PathBuf,
    change: NameChange,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(PathBuf, Named),
    Rename { from: PathBuf, to: PathBuf, what: Named },
    Remove(PathBuf),
}

#[derive(Clone, Debug, Default)]
pub struct Names {
    current: Tree,
    durable: Tree,
    pending: Vec<Pending>,
    references: References,
    numbers: u64,
    /// Files that `durable` leads to, as far as somebody asked since it last changed.
    led_to: RefCell<BTreeSet<Inode>>,
}

/// How many names lead to each file: current and durable ones, and those in changes that are not durable yet.
#[derive(Clone, Debug, Default)]
struct References {
    counts: BTreeMap<Inode, u64>,
    /// Files that lost their last one.
    gone: Vec<Inode>,
}

impl References {
    fn gain(&mut self, named: Named) {
        if let Named::File(inode) = named {
            *self.counts.entry(inode).or_default() += 1;
        }
    }

    fn lose(&mut self, named: Named) {
        if let Named::File(inode) = named
            && let Some(count) = self.counts.get_mut(&inode)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&inode);
                self.gone.push(inode);
            }
        }
    }
}

pub fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Directories that are there from the start.
fn is_root(path: &Path) -> bool {
    path == Path::new("") || path == Path::new("/") || path == Path::new(".")
}

impl Names {
    pub fn get(&self, path: &Path) -> Option<Named> {
        if is_root(path) { Some(Named::Dir) } else { self.current.get(path).copied() }
    }

    pub fn is_dir(&self, path: &Path) -> bool {
        self.get(path) == Some(Named::Dir)
    }

    /// Number of the last change made.
    pub fn last_change(&self) -> u64 {
        self.numbers
    }

    /// Names directly in a directory, in order.
    pub fn list(&self, dir: &Path) -> Vec<(String, Named)> {
        below(&self.current, dir)
            .filter(|(path, _)| parent(path) == dir)
            .filter_map(|(path, named)| Some((path.file_name()?.to_string_lossy().into_owned(), *named)))
            .collect()
    }

    /// All files whose names are durable, or all current ones.
    pub fn files(&self, durable: bool) -> impl Iterator<Item = (&PathBuf, Inode)> {
        let tree = if durable { &self.durable } else { &self.current };
        tree.iter().filter_map(|(path, named)| match named {
            Named::File(inode) => Some((path, *inode)),
            Named::Dir => None,
        })
    }

    /// Whether a power loss leaves a name of the file: most likely the one that it was opened by.
    pub fn leads_to(&self, likely: &Path, inode: Inode) -> bool {
        if self.led_to.borrow().contains(&inode) {
            return true;
        }
        let is_there = |path: &Path| {
            path.ancestors().skip(1).all(|up| is_root(up) || self.durable.get(up) == Some(&Named::Dir))
        };
        let is_led_to = self.durable.get(likely) == Some(&Named::File(inode)) && is_there(likely)
            || self.files(true).any(|(path, named)| named == inode && is_there(path));
        if is_led_to {
            self.led_to.borrow_mut().insert(inode);
        }
        is_led_to
    }

    pub fn add(&mut self, path: &Path, named: Named) {
        self.change(NameChange::Add(path.to_owned(), named));
    }

    pub fn rename(&mut self, from: &Path, to: &Path) {
        if let Some(what) = self.get(from) {
            self.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), what });
        }
    }

    /// Removes a name and, if it is a directory, all that is in it.
    pub fn remove(&mut self, path: &Path) {
        self.change(NameChange::Remove(path.to_owned()));
    }

    fn change(&mut self, change: NameChange) {
        let dir = match &change {
            NameChange::Add(path, _) | NameChange::Remove(path) => parent(path),
            NameChange::Rename { to, .. } => parent(to),
        }
        .to_owned();
        apply(&mut self.current, &change, &mut self.references);
        self.numbers += 1;
        if let Some(named) = change.named() {
            self.references.gain(named);
        }
        self.pending.push(Pending { number: self.numbers, dir, change });
    }

    /// Directories with changes that are not durable.
    pub fn unsynced_dirs(&self) -> BTreeSet<PathBuf> {
        self.pending.iter().map(|pending| pending.dir.clone()).collect()
    }

    /// Makes durable what happened in `dir` up to change `number`, and the way to it. Returns the files that no
    /// name leads to any more.
    pub fn sync_dir(&mut self, dir: &Path, number: u64) -> Vec<Inode> {
        let (covered, rest): (Vec<Pending>, Vec<Pending>) =
            std::mem::take(&mut self.pending).into_iter().partition(|pending| {
                let way = match &pending.change {
                    NameChange::Add(path, Named::Dir) => dir.starts_with(path),
                    _ => false,
                };
                let moved_away = match &pending.change {
                    NameChange::Rename { from, .. } => parent(from) == dir,
                    _ => false,
                };
                pending.number <= number && (pending.dir == dir || way || moved_away)
            });
        self.pending = rest;
        self.led_to.get_mut().clear();
        for pending in covered {
            apply(&mut self.durable, &pending.change, &mut self.references);
            if let Some(named) = pending.change.named() {
                self.references.lose(named);
            }
        }
        std::mem::take(&mut self.references.gone)
    }

    /// Each directory keeps some prefix of what was not synced. Returns how many changes were not.
    pub fn power_loss(&mut self, stream: &mut Stream) -> usize {
        let pending = std::mem::take(&mut self.pending);
        self.led_to.get_mut().clear();
        let mut by_dir: BTreeMap<&Path, u64> = BTreeMap::new();
        for change in &pending {
            *by_dir.entry(&change.dir).or_default() += 1;
        }
        let mut kept: BTreeMap<&Path, u64> = BTreeMap::new();
        for (dir, count) in by_dir {
            kept.insert(dir, stream.below(count + 1));
        }
        for change in &pending {
            let left = kept.get_mut(change.dir.as_path());
            if let Some(left) = left.filter(|left| **left > 0) {
                *left -= 1;
                apply(&mut self.durable, &change.change, &mut self.references);
            }
        }
        // What lies in a directory that is gone is gone.
        let orphans: Vec<PathBuf> = self
            .durable
            .keys()
            .filter(|path| !path.ancestors().skip(1).all(|up| is_root(up) || self.durable.contains_key(up)))
            .cloned()
            .collect();
        for orphan in orphans {
            self.durable.remove(&orphan);
        }
        self.current = self.durable.clone();
        self.references = References::default();
        for named in self.durable.values().chain(self.current.values()) {
            self.references.gain(*named);
        }
        pending.len()
    }

    /// Whether any name, durable or not, leads to the file, or may after a power loss.
    pub fn refers_to(&self, inode: Inode) -> bool {
        self.references.counts.contains_key(&inode)
    }
}

impl NameChange {
    /// What it may give a name to, when it becomes durable.
    fn named(&self) -> Option<Named> {
        match self {
            NameChange::Add(_, named) | NameChange::Rename { what: named, .. } => Some(*named),
            NameChange::Remove(_) => None,
        }
    }
}

/// A path and all that lies below it: neighbours in the order of paths.
fn below<'a>(tree: &'a Tree, root: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a Named)> {
    tree.range::<Path, _>((Bound::Included(root), Bound::Unbounded))
        .take_while(move |(path, _)| path.starts_with(root))
}

fn cut_off(tree: &mut Tree, root: &Path) -> Vec<(PathBuf, Named)> {
    let cut: Vec<(PathBuf, Named)> = below(tree, root).map(|(path, named)| (path.clone(), *named)).collect();
    for (path, _) in &cut {
        tree.remove(path);
    }
    cut
}

fn put(tree: &mut Tree, path: PathBuf, named: Named, references: &mut References) {
    references.gain(named);
    if let Some(replaced) = tree.insert(path, named) {
        references.lose(replaced);
    }
}

fn apply(tree: &mut Tree, change: &NameChange, references: &mut References) {
    match change {
        NameChange::Add(path, named) => put(tree, path.clone(), *named, references),
        NameChange::Remove(path) => {
            for (_, named) in cut_off(tree, path) {
                references.lose(named);
            }
        }
        NameChange::Rename { from, to, what } => {
            let moved = cut_off(tree, from);
            for (_, named) in cut_off(tree, to) {
                references.lose(named);
            }
            put(tree, to.clone(), *what, references);
            for (path, named) in moved {
                if let Ok(rest) = path.strip_prefix(from)
                    && !rest.as_os_str().is_empty()
                {
                    put(tree, to.join(rest), named, references);
                }
                references.lose(named);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn paths(names: &Names) -> BTreeSet<String> {
        names.current.keys().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_name_survives_only_if_its_directory_was_synced() {
        let survives: BTreeSet<bool> = (0..30)
            .map(|seed| {
                let mut names = Names::default();
                names.add(Path::new("d"), Named::Dir);
                names.sync_dir(Path::new(""), names.last_change());
                names.add(Path::new("d/a"), Named::File(Inode(1)));
                names.sync_dir(Path::new("d"), names.last_change());
                names.add(Path::new("d/b"), Named::File(Inode(2)));
                names.power_loss(&mut Stream::new(seed, "disk"));
                assert!(names.get(Path::new("d/a")).is_some());
                names.get(Path::new("d/b")).is_some()
            })
            .collect();
        assert_eq!(survives, BTreeSet::from([false, true]));
    }

    #[test]
    fn a_name_leads_to_a_file_when_it_and_the_way_to_it_are_durable() {
        let mut names = Names::default();
        names.add(Path::new("d"), Named::Dir);
        names.add(Path::new("d/a"), Named::File(Inode(1)));
        assert!(!names.leads_to(Path::new("d/a"), Inode(1)));
        names.sync_dir(Path::new("d"), names.last_change());
        assert!(names.leads_to(Path::new("d/a"), Inode(1)) && !names.leads_to(Path::new("d/a"), Inode(2)));
        names.rename(Path::new("d/a"), Path::new("d/b"));
        assert!(names.leads_to(Path::new("d/b"), Inode(1)), "by its old name");
        names.remove(Path::new("d/b"));
        names.sync_dir(Path::new("d"), names.last_change());
        assert!(!names.leads_to(Path::new("d/b"), Inode(1)), "what it was led to by is gone");
    }

    #[test]
    fn syncing_a_directory_keeps_the_way_to_it_and_not_its_neighbours() {
        let mut lost = false;
        for seed in 0..30 {
            let mut names = Names::default();
            for dir in ["x", "x/y", "x/y/z", "x/other"] {
                names.add(Path::new(dir), Named::Dir);
            }
            names.sync_dir(Path::new("x/y/z"), names.last_change());
            names.power_loss(&mut Stream::new(seed, "disk"));
            assert!(names.is_dir(Path::new("x/y/z")));
            lost |= !names.is_dir(Path::new("x/other"));
        }
        assert!(lost);
    }

    #[test]
    fn an_unsynced_rename_leaves_the_old_or_the_new_name_never_both() {
        let seen: BTreeSet<BTreeSet<String>> = (0..30)
            .map(|seed| {
                let mut names = Names::default();
                names.add(Path::new("old"), Named::File(Inode(1)));
                names.add(Path::new("new"), Named::File(Inode(2)));
                names.sync_dir(Path::new(""), names.last_change());
                names.rename(Path::new("old"), Path::new("new"));
                names.power_loss(&mut Stream::new(seed, "disk"));
                paths(&names)
            })
            .collect();
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(seen, BTreeSet::from([set(&["new"]), set(&["new", "old"])]));
    }

    #[test]
    fn removing_or_renaming_a_directory_takes_its_contents_along() {
        let mut names = Names::default();
        for (path, named) in [("a", Named::Dir), ("a/f", Named::File(Inode(1))), ("ab", Named::Dir)] {
            names.add(Path::new(path), named);
        }
        names.rename(Path::new("a"), Path::new("c"));
        assert_eq!(paths(&names).into_iter().collect::<Vec<_>>(), ["ab", "c", "c/f"]);
        names.remove(Path::new("c"));
        assert_eq!(paths(&names).into_iter().collect::<Vec<_>>(), ["ab"]);
    }
}
