//! What the keys of each role may do, and the making of such keys.

use http::Method;
use serde_json::{Value, json};

use super::super::generation::{self, Problem};
use super::super::{CallError, Client, Generation};
use super::Lifecycle;
use crate::config::Secret;

/// What the person who runs a set-up needs.
pub const SETUP_PRIVILEGES: &str = "cluster monitor, manage_index_templates and manage_ilm, manage on profiling-* and .profiling-*; \
     for --create-keys also cluster manage_api_key and a user instead of a key (the role superuser has all of it)";

/// Whether the caller may make every part of a set-up.
pub(super) async fn may_set_up(client: &Client, lifecycle: Lifecycle) -> Result<(), Problem> {
    let mut cluster = vec!["monitor", "manage_index_templates"];
    if lifecycle == Lifecycle::Policy {
        cluster.push("manage_ilm");
    }
    let index = json!([{ "names": ["profiling-*", ".profiling-*"], "privileges": ["manage"] }]);
    generation::ask_privileges(client, &cluster, index).await
}

/// A role with the least that its key has to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRole {
    /// Role of this program.
    pub role: &'static str,
    /// Name of the key.
    pub name: &'static str,
    /// Role descriptor as `_security/api_key` takes it.
    pub descriptor: Value,
}

/// Roles that talk to Elasticsearch. Every privilege has its call: `monitor` to ask for version and licence,
/// `view_index_metadata` and `read` to find out what is set up, `create_doc` for documents, `index` for the bulk updates of
/// executables, `auto_configure` for streams that appear with their first document, `write` to take entries off a queue,
/// `read` on the hidden indices for `_mget`.
#[must_use]
pub fn roles(generation: Generation) -> [KeyRole; 3] {
    let descriptor = |indices: Value| json!({ "cluster": ["monitor"], "indices": indices });
    let mut write = vec!["read", "view_index_metadata", "create_doc", "index"];
    if generation == Generation::Otel {
        write.push("auto_configure");
    }
    let tables = json!({ "names": [".profiling-*"], "privileges": ["read", "view_index_metadata"] });
    [
        KeyRole {
            role: "collector",
            name: "everflame-collector",
            descriptor: descriptor(json!([{ "names": ["profiling-*"], "privileges": write }])),
        },
        KeyRole {
            role: "symbolizer",
            name: "everflame-symbolizer",
            descriptor: descriptor(json!([
                { "names": ["profiling-*"], "privileges": ["read", "view_index_metadata", "write"] },
                tables,
            ])),
        },
        KeyRole {
            role: "web",
            name: "everflame-web",
            descriptor: descriptor(json!([
                { "names": ["profiling-*"], "privileges": ["read", "view_index_metadata"] },
                tables,
            ])),
        },
    ]
}

/// What became of a key.
#[derive(Debug)]
pub enum NewKey {
    /// Made just now; its secret is known this once.
    Made {
        /// Identifier, for revoking.
        id: String,
        /// Value for `output.elasticsearch.api_key`.
        encoded: Secret,
    },
    /// There is one of this name that is valid.
    Exists {
        /// Its identifier.
        id: String,
    },
}

/// Makes the key of a role, unless a valid one of that name is there.
///
/// # Errors
/// When the caller may not.
pub async fn create(client: &Client, role: &KeyRole) -> Result<NewKey, CallError> {
    let path = format!("/_security/api_key?name={}", role.name);
    let known = client.json(Method::GET, &path, None).await?;
    let valid = known["api_keys"].as_array().into_iter().flatten().find(|key| key["invalidated"] == false);
    if let Some(id) = valid.and_then(|key| key["id"].as_str()) {
        return Ok(NewKey::Exists { id: id.to_owned() });
    }
    let made = client.json(Method::POST, "/_security/api_key", Some(&role.request())).await?;
    let text = |key: &str| made[key].as_str().unwrap_or_default().to_owned();
    Ok(NewKey::Made { id: text("id"), encoded: Secret::new(text("encoded")) })
}

impl KeyRole {
    /// Body of the call that makes the key.
    #[must_use]
    pub fn request(&self) -> Value {
        json!({
            "name": self.name,
            "role_descriptors": { self.role: self.descriptor },
            "metadata": { "application": "everflame" },
        })
    }
}
