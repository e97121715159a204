//! Where scenarios stand: the directory `scenarios/`, and how a name on the command line finds its file.

use std::path::{Path, PathBuf};

use super::load::{ScenarioError, nearest, parse};
use super::model::Scenario;

/// A scenario and the name it goes by in reports: its path under `scenarios/` without the ending.
#[derive(Clone, Debug, PartialEq)]
pub struct ShelvedScenario {
    pub id: String,
    pub path: PathBuf,
    /// The file as it was read.
    pub text: String,
    pub scenario: Scenario,
}

impl ShelvedScenario {
    /// From a text that is no file any more.
    pub fn from_text(id: &str, text: &str) -> Result<ShelvedScenario, ScenarioError> {
        let scenario = parse(&format!("{id}, as recorded"), text)?;
        Ok(ShelvedScenario { id: id.to_owned(), path: PathBuf::new(), text: text.to_owned(), scenario })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    #[error(
        "there is no directory `scenarios` here or above: run this inside the repository, or give paths of files"
    )]
    NoShelf,
    #[error("no scenario `{name}`{}; `chronik-sim list` shows all",
        suggestion.as_ref().map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default())]
    Unknown { name: String, suggestion: Option<String> },
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
}

pub struct ScenarioDir {
    root: PathBuf,
}

impl ScenarioDir {
    /// The nearest `scenarios` directory from the working directory upwards, or the one of the source tree
    /// that this binary was built from.
    pub fn find() -> Result<ScenarioDir, ShelfError> {
        let here = std::env::current_dir().unwrap_or_default();
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        here.ancestors()
            .chain([built.as_path()])
            .map(|directory| directory.join("scenarios"))
            .find(|directory| directory.is_dir())
            .map(|root| ScenarioDir { root })
            .ok_or(ShelfError::NoShelf)
    }

    /// The repository, where `reports/out` is.
    pub fn repository(&self) -> PathBuf {
        self.root.parent().map(Path::to_path_buf).unwrap_or_default()
    }

    /// Names of all scenarios, in order.
    pub fn names(&self) -> Result<Vec<String>, ShelfError> {
        let mut names = Vec::new();
        self.collect(&self.root, "", &mut names)?;
        names.sort();
        Ok(names)
    }

    fn collect(&self, directory: &Path, prefix: &str, names: &mut Vec<String>) -> Result<(), ShelfError> {
        let unreadable = |source| ShelfError::Unreadable { path: directory.to_path_buf(), source };
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                self.collect(&entry.path(), &format!("{prefix}{name}/"), names)?;
            } else if let Some(stem) = name.strip_suffix(".toml") {
                names.push(format!("{prefix}{stem}"));
            }
        }
        Ok(())
    }

    pub fn all(&self) -> Result<Vec<ShelvedScenario>, ShelfError> {
        self.names()?.iter().map(|name| self.load(name)).collect()
    }

    /// Those that the words pick, in order and none twice: names, paths of files, folders (`smoke`,
    /// `scenarios/safety`), and patterns with `*` and `?` over names (`safety/*`).
    pub fn select(&self, words: &[String]) -> Result<Vec<ShelvedScenario>, ShelfError> {
        let names = self.names()?;
        let mut picked: Vec<ShelvedScenario> = Vec::new();
        for word in words {
            let of_word = self.named_by(word, &names);
            let found: Vec<ShelvedScenario> = if of_word.is_empty() {
                vec![self.load(word)?]
            } else {
                of_word.iter().map(|name| self.load(name)).collect::<Result<_, _>>()?
            };
            for scenario in found {
                if !picked.iter().any(|known| known.id == scenario.id) {
                    picked.push(scenario);
                }
            }
        }
        Ok(picked)
    }

    /// Names of shelved scenarios that a folder or a pattern picks.
    fn named_by<'a>(&self, word: &str, names: &'a [String]) -> Vec<&'a str> {
        let inside = self.inside(word);
        let pattern = inside.strip_suffix(".toml").unwrap_or(&inside);
        let folder = format!("{}/", inside.trim_end_matches('/'));
        let picks = |name: &&String| {
            if word.contains(['*', '?']) {
                matches_wildcards(pattern.as_bytes(), name.as_bytes())
            } else {
                inside.is_empty() || name.starts_with(&folder)
            }
        };
        names.iter().filter(picks).map(String::as_str).collect()
    }

    /// A path below the shelf as names are: `scenarios/safety/` is `safety/`.
    fn inside(&self, word: &str) -> String {
        let path = Path::new(word);
        let full = if path.is_dir() { path.canonicalize().ok() } else { None };
        let root = self.root.canonicalize().unwrap_or_else(|_| self.root.clone());
        if let Some(inside) = full.as_deref().and_then(|full| full.strip_prefix(&root).ok()) {
            return inside.to_string_lossy().into_owned();
        }
        word.strip_prefix("./").unwrap_or(word).strip_prefix("scenarios/").unwrap_or(word).to_owned()
    }

    /// By name (`museum/offset-reset`) or by path of a file.
    pub fn load(&self, name: &str) -> Result<ShelvedScenario, ShelfError> {
        let given = Path::new(name);
        let shelved = self.root.join(format!("{name}.toml"));
        let path = if shelved.is_file() {
            shelved
        } else if given.is_file() {
            given.to_path_buf()
        } else {
            let names = self.names()?;
            let suggestion = nearest(name, names.iter().map(String::as_str))
                .or_else(|| names.iter().find(|known| known.ends_with(&format!("/{name}"))).cloned());
            return Err(ShelfError::Unknown { name: name.to_owned(), suggestion });
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ShelfError::Unreadable { path: path.clone(), source })?;
        let scenario = parse(&path.display().to_string(), &text)?;
        Ok(ShelvedScenario { id: self.id_of(&path, name), path, text, scenario })
    }

    fn id_of(&self, path: &Path, given: &str) -> String {
        let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let root = self.root.canonicalize().unwrap_or_else(|_| self.root.clone());
        match full.strip_prefix(&root) {
            Ok(inside) => inside.with_extension("").to_string_lossy().into_owned(),
            Err(_) => given.to_owned(),
        }
    }
}

/// `*` is any text, also across folders, `?` one character.
fn matches_wildcards(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| matches_wildcards(rest, &name[skip..])),
        (Some((b'?', rest)), Some((_, others))) => matches_wildcards(rest, others),
        (Some((wanted, rest)), Some((found, others))) => wanted == found && matches_wildcards(rest, others),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_patterns_and_names_pick_scenarios_and_none_twice() {
        let shelf = ScenarioDir::find().unwrap();
        let picked = |words: &[&str]| -> Vec<String> {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            shelf.select(&words).unwrap().into_iter().map(|shelved| shelved.id).collect()
        };
        let museum = picked(&["museum"]);
        assert!(museum.len() >= 6 && museum.iter().all(|id| id.starts_with("museum/")), "{museum:?}");
        let root = shelf.root.to_string_lossy().into_owned();
        for same in
            ["museum/", "museum/*", "scenarios/museum", "scenarios/museum/", &format!("{root}/museum")]
        {
            assert_eq!(picked(&[same]), museum, "{same}");
        }
        assert_eq!(picked(&["*/single-nod?"]), ["smoke/single-node"]);
        assert_eq!(picked(&["museum/offset-reset", "museum"]).len(), museum.len());
        assert_eq!(picked(&[&format!("{root}/smoke/single-node.toml")]), ["smoke/single-node"]);
        assert!(shelf.select(&["safety/nothing-*".to_owned()]).is_err());
        assert!(shelf.select(&["smok".to_owned()]).is_err());
    }

    #[test]
    fn a_recorded_text_is_as_good_as_its_file() {
        let shelved = ScenarioDir::find().unwrap().load("smoke/single-node").unwrap();
        let again = ShelvedScenario::from_text(&shelved.id, &shelved.text).unwrap();
        assert_eq!(again.scenario, shelved.scenario);
    }

    #[test]
    fn every_scenario_on_the_shelf_reads_and_is_named_after_its_file() {
        for shelved in ScenarioDir::find().unwrap().all().unwrap() {
            let stem = shelved.path.file_stem().unwrap().to_string_lossy();
            assert_eq!(shelved.scenario.name, stem, "{}", shelved.id);
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_suggested() {
        let shelf = ScenarioDir::find().unwrap();
        for (given, meant) in
            [("offset-reset", "museum/offset-reset"), ("smoke/single-nod", "smoke/single-node")]
        {
            let error = shelf.load(given).unwrap_err().to_string();
            assert!(error.contains(meant), "{error}");
        }
    }
}
