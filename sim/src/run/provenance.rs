//! Which code this is: the commit of the repository that a run happens in.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The commit's hash, with `+changes` when the tree differs from it; none outside a repository.
pub(super) fn commit() -> Option<String> {
    static COMMIT: OnceLock<Option<String>> = OnceLock::new();
    COMMIT.get_or_init(|| ask(Path::new(env!("CARGO_MANIFEST_DIR")))).clone()
}

fn ask(directory: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"]).filter(|commit| !commit.is_empty())?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|text| !text.is_empty());
    Some(if changed { format!("{commit}+changes") } else { commit })
}
