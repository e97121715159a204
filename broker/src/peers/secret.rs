//! The cluster's secret, from where the configuration says it is.

use std::path::{Path, PathBuf};

use io_backend::{Backend, Deadline, Disk, DiskError, File, OpenHow};

use crate::config::{PeersConfig, Secret};

/// More is no secret, and is not read.
const FILE_BYTES_MAX: usize = 4_096;

/// Why there is no secret where one was to be.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is not there or cannot be read.
    #[error("the cluster's secret cannot be read: {0}. Check cluster.secret_file and who may read that file")]
    Disk(#[from] DiskError),
    /// What is in it is no secret.
    #[error(
        "{file} (cluster.secret_file) holds no secret: it is {why}. Write the same random text into it on all nodes"
    )]
    Unfit {
        /// The file.
        file: PathBuf,
        /// What is wrong with what is in it, without repeating that.
        why: String,
    },
}

/// The secret; `None` where none is configured.
///
/// # Errors
///
/// It is to be in a file, and that cannot be read or holds none.
pub async fn read<B: Backend>(
    backend: &B,
    config: &PeersConfig,
    deadline: Deadline,
) -> Result<Option<Secret>, SecretError> {
    match &config.secret_file {
        None => Ok(config.secret.clone()),
        Some(file) => read_file(backend, file, deadline).await.map(Some),
    }
}

async fn read_file<B: Backend>(backend: &B, file: &Path, deadline: Deadline) -> Result<Secret, SecretError> {
    let opened = backend.disk().open(file, OpenHow::ReadOnly, deadline).await?;
    let bytes = opened.read_at(0, FILE_BYTES_MAX, deadline).await?;
    let unfit = |why: String| SecretError::Unfit { file: file.to_owned(), why };
    let text = std::str::from_utf8(&bytes).map_err(|_| unfit("not text".to_owned()))?;
    Secret::new(text).map_err(unfit)
}
