//! Which seeds: ranges as they are written, shards, and what is taken when nobody says.

use std::str::FromStr;

/// `A..B`, both included, or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seeds {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Seeds {
    pub(super) fn all(self) -> impl Iterator<Item = u64> {
        self.first..=self.last
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let wrong = || format!("{text:?} is no range of seeds: write A..B, both included, or one number");
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let first = first.trim().parse().map_err(|_| wrong())?;
        let last = last.trim().trim_start_matches('=').parse().map_err(|_| wrong())?;
        if first > last { Err(wrong()) } else { Ok(Seeds { first, last }) }
    }
}

/// `FROM..TO`, the end excluded.
pub(super) fn window(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("{text:?} is no window: write FROM..TO");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    Ok((from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?))
}

/// `I/N`: the I-th of N equal shares, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    pub(super) fn holds(self, position: usize) -> bool {
        position % self.of == self.index - 1
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let wrong = || format!("{text:?} is no shard: write I/N with I from 1 to N");
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let (index, of) = (index.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
        if index == 0 || index > of { Err(wrong()) } else { Ok(Shard { index, of }) }
    }
}

/// A fixed handful, and a few that change with every commit so that CI sees new ones all the time. A
/// scenario without a swarm differs little between seeds and gets fewer.
pub(super) fn usual(has_swarm: bool, repository: &std::path::Path) -> Vec<u64> {
    let fixed = if has_swarm { 16 } else { 1 };
    let mut seeds: Vec<u64> = (1..=fixed).collect();
    if let Some(commit) = commit_hash(repository) {
        let number = u64::from_str_radix(&commit[..commit.len().min(8)], 16).unwrap_or(0);
        let fresh = if has_swarm { 8 } else { 1 };
        seeds.extend((0..fresh).map(|n| 1_000 + (number + n) % 1_000_000));
    }
    seeds
}

fn commit_hash(repository: &std::path::Path) -> Option<String> {
    let head = ["rev-parse", "HEAD"];
    let output = std::process::Command::new("git").arg("-C").arg(repository).args(head).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && text.len() >= 8).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_range_are_included() {
        assert_eq!("3..5".parse::<Seeds>().unwrap().all().collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!("7".parse::<Seeds>().unwrap().all().collect::<Vec<_>>(), [7]);
        for text in ["", "5..3", "a..b", "..", "-1..2"] {
            assert!(text.parse::<Seeds>().is_err(), "{text}");
        }
    }

    #[test]
    fn shards_share_everything_and_nothing_twice() {
        let shards: Vec<Shard> = (1..=3).map(|i| format!("{i}/3").parse().unwrap()).collect();
        for position in 0..20 {
            assert_eq!(shards.iter().filter(|shard| shard.holds(position)).count(), 1);
        }
        for text in ["0/3", "4/3", "1", "a/b"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
