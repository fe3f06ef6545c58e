//! The last configuration of every custom resource, kept beside the spool: a resource that is deleted while spans of it
//! wait is drained after a restart, too.
//!
//! `collectors.json` in the data directory. It may hold what exporters authenticate with, so only this user reads it.

use crate::cluster::PipelineSource;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub(super) const NAME: &str = "collectors.json";
/// Readable and writable for the owner alone.
const MODE: u32 = 0o600;

pub(super) struct Archive {
    path: PathBuf,
    sources: BTreeMap<String, PipelineSource>,
}

impl Archive {
    /// What an earlier process left; nothing, with a warning, if that cannot be read.
    pub fn open(directory: &Path) -> Self {
        let path = directory.join(NAME);
        let sources = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error.to_string()),
        };
        let sources = sources.unwrap_or_else(|error: String| {
            tracing::warn!(
                path = %path.display(),
                error,
                "cannot be read; spans of custom resources that are gone wait for one of the same name"
            );
            BTreeMap::new()
        });
        Self { path, sources }
    }

    pub fn get(&self, owner: &str) -> Option<&PipelineSource> {
        self.sources.get(owner)
    }

    pub fn owners(&self) -> Vec<String> {
        self.sources.keys().cloned().collect()
    }

    pub async fn keep(&mut self, source: PipelineSource) {
        if self.sources.get(&source.owner) != Some(&source) {
            self.sources.insert(source.owner.clone(), source);
            self.write().await;
        }
    }

    pub async fn forget(&mut self, owner: &str) {
        if self.sources.remove(owner).is_some() {
            self.write().await;
        }
    }

    async fn write(&self) {
        let path = self.path.clone();
        let written = match serde_json::to_vec(&self.sources) {
            Ok(text) => tokio::task::spawn_blocking(move || write_whole(&path, &text)).await.map_err(Into::into),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written.and_then(|written: std::io::Result<()>| written) {
            tracing::warn!(
                path = %self.path.display(),
                %error,
                "cannot be written; spans of a custom resource that is deleted are sent only while this process runs"
            );
        }
    }
}

/// Whole or not at all, whenever the process ends.
fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("json.new");
    // A leftover may have another mode.
    let _ = std::fs::remove_file(&new);
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn source(owner: &str) -> PipelineSource {
        PipelineSource { owner: owner.to_owned(), config: "receivers:".to_owned(), ..PipelineSource::default() }
    }

    #[tokio::test]
    async fn what_is_kept_is_there_again_and_only_for_this_user() {
        let directory = tempfile::tempdir().unwrap();
        let mut archive = Archive::open(directory.path());
        archive.keep(source("a/one")).await;
        archive.keep(source("a/two")).await;
        archive.forget("a/two").await;
        let mode = std::fs::metadata(directory.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Archive::open(directory.path());
        assert_eq!(again.owners(), ["a/one"]);
        assert_eq!(again.get("a/one"), Some(&source("a/one")));
    }

    #[tokio::test]
    async fn a_damaged_file_costs_itself() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(NAME), "{").unwrap();
        let mut archive = Archive::open(directory.path());
        assert!(archive.owners().is_empty());
        archive.keep(source("a/one")).await;
        assert_eq!(Archive::open(directory.path()).owners(), ["a/one"]);
    }
}
