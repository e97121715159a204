//! What a fault is aimed at: a machine, a class of paths, an operation, a link between machines.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::duration::as_text;

/// A machine: a broker node by its number, or any machine by its name (`client-2`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NodeRef {
    Number(u32),
    Name(String),
}

impl NodeRef {
    /// The machine's name: nodes are called `node1`, `node2`, ...
    pub fn machine(&self) -> String {
        match self {
            NodeRef::Number(number) => format!("node{number}"),
            NodeRef::Name(name) => name.clone(),
        }
    }
}

impl NodeRef {
    /// Whether it is the machine of that name.
    pub fn is(&self, machine: &str) -> bool {
        match self {
            NodeRef::Number(number) => {
                machine.strip_prefix("node").and_then(|text| text.parse().ok()) == Some(*number)
            }
            NodeRef::Name(name) => name == machine,
        }
    }
}

impl From<u32> for NodeRef {
    fn from(number: u32) -> NodeRef {
        NodeRef::Number(number)
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.machine())
    }
}

/// What a file is for, told from its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathClass {
    Journal,
    Raft,
    Segment,
    Index,
    Snapshot,
    Other,
}

impl PathClass {
    /// By the names in the path, nearest to the file first.
    pub fn of(path: &Path) -> PathClass {
        let text = path.to_string_lossy();
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name.ends_with("index") {
            PathClass::Index
        } else if name.contains("snapshot") || name.ends_with(".snap") {
            PathClass::Snapshot
        } else if text.contains("raft") {
            PathClass::Raft
        } else if text.contains("journal") || text.contains("wal") {
            PathClass::Journal
        } else if name.ends_with(".log") || name.ends_with(".segment") {
            PathClass::Segment
        } else {
            PathClass::Other
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            PathClass::Journal => "journal",
            PathClass::Raft => "raft",
            PathClass::Segment => "segment",
            PathClass::Index => "index",
            PathClass::Snapshot => "snapshot",
            PathClass::Other => "other",
        }
    }
}

/// Which files a disk fault touches: `any`, a class by its name, or a path in which `*` stands for any
/// text (`*/orders-3/*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathSelector {
    Any,
    Class(PathClass),
    Pattern(String),
}

impl PathSelector {
    /// The index of the partitions whose files alone it selects, in whatever topic: `/data/partitions/*-3.*`.
    pub fn partition(&self) -> Option<i32> {
        let PathSelector::Pattern(pattern) = self else { return None };
        let (index, _) = pattern.strip_prefix("/data/partitions/*-")?.split_once('.')?;
        index.parse().ok()
    }

    pub fn matches(&self, path: &Path) -> bool {
        match self {
            PathSelector::Any => true,
            PathSelector::Class(class) => PathClass::of(path) == *class,
            PathSelector::Pattern(pattern) => matches_pattern(pattern, &path.to_string_lossy()),
        }
    }
}

impl FromStr for PathSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<PathSelector, SelectorError> {
        Ok(match text {
            "any" => PathSelector::Any,
            "journal" => PathSelector::Class(PathClass::Journal),
            "raft" => PathSelector::Class(PathClass::Raft),
            "segment" => PathSelector::Class(PathClass::Segment),
            "index" => PathSelector::Class(PathClass::Index),
            "snapshot" => PathSelector::Class(PathClass::Snapshot),
            "other" => PathSelector::Class(PathClass::Other),
            pattern if pattern.contains('*') || pattern.contains('/') => {
                PathSelector::Pattern(pattern.to_owned())
            }
            _ => {
                return Err(SelectorError {
                    text: text.to_owned(),
                    wanted: "any, journal, raft, segment, index, snapshot, other, or a path with * for any text",
                });
            }
        })
    }
}

impl fmt::Display for PathSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathSelector::Any => f.write_str("any"),
            PathSelector::Class(class) => f.write_str(class.name()),
            PathSelector::Pattern(pattern) => f.write_str(pattern),
        }
    }
}

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    Read,
    Write,
    Sync,
    Open,
    /// Rename, remove, list, make or sync a directory, ask or set a length.
    Name,
    Any,
}

impl Operation {
    pub fn covers(self, done: Operation) -> bool {
        self == Operation::Any || self == done
    }

    pub fn name(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Sync => "sync",
            Operation::Open => "open",
            Operation::Name => "name",
            Operation::Any => "any",
        }
    }
}

/// Machines whose traffic a network fault touches: `node1 -> node2` one way, `node1 <-> node2` both ways;
/// `*` stands for any text in a name (`client-* <-> node1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub from: String,
    pub to: String,
    pub both_ways: bool,
}

impl Link {
    /// Everything that goes from or to this machine.
    pub fn all_of(machine: impl Into<String>) -> Link {
        Link { from: machine.into(), to: "*".to_owned(), both_ways: true }
    }

    /// Whether one of its ends is that machine.
    pub fn is_of(&self, machine: &str) -> bool {
        matches_pattern(&self.from, machine) || matches_pattern(&self.to, machine)
    }

    pub fn matches(&self, from: &str, to: &str) -> bool {
        let one = |a: &str, b: &str| matches_pattern(&self.from, a) && matches_pattern(&self.to, b);
        one(from, to) || (self.both_ways && one(to, from))
    }
}

impl FromStr for Link {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Link, SelectorError> {
        let (from, to, both_ways) = match (text.split_once("<->"), text.split_once("->")) {
            (Some((from, to)), _) => (from, to, true),
            (None, Some((from, to))) => (from, to, false),
            (None, None) => ("", "", false),
        };
        let (from, to) = (from.trim(), to.trim());
        if from.is_empty() || to.is_empty() {
            return Err(SelectorError {
                text: text.to_owned(),
                wanted: "two machines, as in \"node1 <-> node2\" or \"client-* -> node1\"",
            });
        }
        Ok(Link { from: from.to_owned(), to: to.to_owned(), both_ways })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.from, if self.both_ways { "<->" } else { "->" }, self.to)
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} selects nothing: write {wanted}")]
pub struct SelectorError {
    text: String,
    wanted: &'static str,
}

as_text!(PathSelector, Link);

/// Whether `text` is `pattern`, in which `*` stands for any text.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*", "", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_machine_is_told_by_its_number_or_its_name() {
        for (node, machine, expected) in [
            (NodeRef::Number(1), "node1", true),
            (NodeRef::Number(1), "node11", false),
            (NodeRef::Number(1), "client-1", false),
            (NodeRef::Name("client-1".into()), "client-1", true),
        ] {
            assert_eq!(node.is(machine), expected, "{node} is {machine}");
            assert_eq!(node.machine() == machine, expected);
        }
    }

    #[test]
    fn links_read_one_way_and_both_ways() {
        let both: Link = "client-* <-> node1".parse().unwrap();
        assert!(both.matches("client-3", "node1") && both.matches("node1", "client-3"));
        assert!(!both.matches("node2", "node1"));
        let one: Link = "node1 -> node2".parse().unwrap();
        assert!(one.matches("node1", "node2") && !one.matches("node2", "node1"));
        assert!("node1".parse::<Link>().is_err());
    }

    #[test]
    fn paths_have_classes() {
        for (path, class) in [
            ("data/journal/000001.journal", PathClass::Journal),
            ("data/raft/000001.journal", PathClass::Raft),
            ("data/topics/orders-3/00000000.log", PathClass::Segment),
            ("data/topics/orders-3/00000000.timeindex", PathClass::Index),
            ("data/topics/orders-3/00000010.snapshot", PathClass::Snapshot),
            ("data/meta.properties", PathClass::Other),
        ] {
            assert_eq!(PathClass::of(Path::new(path)), class, "{path}");
        }
    }
}
