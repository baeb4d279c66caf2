//! `store`: the embedded store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ByteSize, Settings};

/// Settings of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSection {
    /// Directory; created when missing.
    pub data_dir: PathBuf,
    /// Samples older than this are deleted.
    pub retention: Duration,
    /// Oldest samples are deleted beyond this many bytes on disk; `None` = no limit.
    pub retention_size: Option<ByteSize>,
    /// Times of samples older than this are rounded down to 1 s.
    pub age_to_seconds: Duration,
}

const DAY: Duration = Duration::from_hours(24);

impl StoreSection {
    pub(super) fn read_at(settings: &Settings, at: &str, data_dir: &Path) -> Self {
        let key = |name: &str| format!("{at}.{name}");
        let any = Duration::from_hours(1)..=Duration::MAX;
        Self {
            data_dir: settings.text(&key("data_dir"), &data_dir.display().to_string()).into(),
            retention: settings.duration(&key("retention"), DAY * 60, any.clone()),
            retention_size: settings.size(&key("retention_size"), None),
            age_to_seconds: settings.duration(&key("age_to_seconds"), DAY * 7, any),
        }
    }
}
