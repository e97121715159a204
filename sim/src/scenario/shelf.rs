//! Where scenarios stand: the directory `scenarios/`, and how a name on the command line finds its file.

use std::path::{Path, PathBuf};

use super::load::{ScenarioError, nearest, parse};
use super::model::Scenario;

/// A scenario and the name it goes by in reports: its path under `scenarios/` without the ending.
#[derive(Clone, Debug, PartialEq)]
pub struct ShelvedScenario {
    pub id: String,
    pub path: PathBuf,
    pub scenario: Scenario,
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

pub struct Shelf {
    root: PathBuf,
}

impl Shelf {
    /// The nearest `scenarios` directory from the working directory upwards, or the one of the source tree
    /// that this binary was built from.
    pub fn find() -> Result<Shelf, ShelfError> {
        let here = std::env::current_dir().unwrap_or_default();
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        here.ancestors()
            .chain([built.as_path()])
            .map(|directory| directory.join("scenarios"))
            .find(|directory| directory.is_dir())
            .map(|root| Shelf { root })
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
        Ok(ShelvedScenario { id: self.id_of(&path, name), path, scenario })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_on_the_shelf_reads_and_is_named_after_its_file() {
        for shelved in Shelf::find().unwrap().all().unwrap() {
            let stem = shelved.path.file_stem().unwrap().to_string_lossy();
            assert_eq!(shelved.scenario.name, stem, "{}", shelved.id);
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_suggested() {
        let shelf = Shelf::find().unwrap();
        for (given, meant) in
            [("offset-reset", "museum/offset-reset"), ("smoke/single-nod", "smoke/single-node")]
        {
            let error = shelf.load(given).unwrap_err().to_string();
            assert!(error.contains(meant), "{error}");
        }
    }
}
