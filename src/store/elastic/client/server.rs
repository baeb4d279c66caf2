//! What a cluster says of itself, and whether that will do.

use http::Method;
use serde::Deserialize;

use super::{Answer, CallError, Client};

/// Oldest release with the documents of Universal Profiling as they are written and read here.
pub const OLDEST: &str = "8.9.1";
const OLDEST_PARTS: (u32, u32, u32) = (8, 9, 1);

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name of the cluster.
    pub cluster: String,
    /// Release as it is written, `8.19.13`.
    pub version: String,
    /// Major, minor and patch number of the release.
    pub parts: (u32, u32, u32),
}

#[derive(Deserialize)]
struct Root {
    cluster_name: String,
    version: Version,
}

#[derive(Deserialize)]
struct Version {
    number: String,
}

impl Client {
    /// Asks who is there.
    ///
    /// # Errors
    /// As [`Client::json`], and [`CallError::TooOld`].
    pub async fn server(&self) -> Result<Server, CallError> {
        let Answer { host, body } = self.call(Method::GET, "/", "", bytes::Bytes::new()).await?;
        let wrong = |problem: String| CallError::Answer { host: host.clone(), problem };
        let root: Root = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
        let version = root.version.number;
        let parts =
            parts(&version).ok_or_else(|| wrong(format!("expected a version, found \"{version}\"")))?;
        if parts < OLDEST_PARTS {
            return Err(CallError::TooOld { host, found: version, oldest: OLDEST });
        }
        Ok(Server { cluster: root.cluster_name, version, parts })
    }
}

/// Numbers of `8.19.13` or `9.1.0-SNAPSHOT`.
fn parts(version: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = version.split(['.', '-']).map(str::parse::<u32>);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next()?))
}
