//! What a cluster is: its version and licence, which shape of documents it is set up for, and what stands in the way.
//!
//! Four small reads that the documented key of a collector may make (cluster `monitor`, `read` and `write` on
//! `profiling-*`); nothing here changes anything. Asked at start, and again for the readiness page.

use std::collections::BTreeMap;
use std::fmt;

use http::Method;
use serde_json::{Value, json};

use super::{CallError, Client, Generation, LEVELS, Shape};

/// Oldest release that is used: readers of profiles take indices of older ones for unusable.
pub const OLDEST: Version = Version { major: 8, minor: 9, patch: 1 };

/// First release whose readers ask for documents of the second generation.
pub const FIRST_OTEL: Version = Version { major: 9, minor: 6, patch: 0 };

/// Index template that says that a cluster knows the second generation.
pub const OTEL_TEMPLATE: &str = "profiling-events-otel@template";

/// A release of Elasticsearch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 8 of 8.19.13.
    pub major: u16,
    /// 19 of 8.19.13.
    pub minor: u16,
    /// 13 of 8.19.13.
    pub patch: u16,
}

impl Version {
    /// Reads `8.19.13`, also with a suffix such as `-SNAPSHOT`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.split('-').next()?;
        let mut parts = numbers.split('.').map(|part| part.parse().ok());
        Some(Self {
            major: parts.next()??,
            minor: parts.next()??,
            patch: parts.next().flatten().unwrap_or(0),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What a cluster says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Name of the cluster.
    pub name: String,
    /// Release.
    pub version: Version,
}

/// What a caller wants of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Write documents.
    Write,
    /// Ask questions.
    Read,
}

/// A cluster that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// What it says of itself.
    pub about: About,
    /// `basic`, `trial`, `enterprise`, …; empty when it may not be asked.
    pub licence: String,
    /// What documents have to look like.
    pub shape: Shape,
    /// There are down-sampled event streams, whoever fills them.
    pub levels: bool,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A data stream.
    Stream,
    /// An alias of one or more indices.
    Alias,
    /// An index of just this name.
    Index,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "a data stream",
            Self::Alias => "an alias",
            Self::Index => "an index",
        })
    }
}

/// Names of profiling data in a cluster, and what they stand for.
pub type Places = BTreeMap<String, Place>;

/// Why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// No answer, or one that says nothing of these.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A release that misses what is needed.
    #[error("expected Elasticsearch {OLDEST} or newer, found {0}")]
    TooOld(Version),
    /// Key or password is refused.
    #[error("Elasticsearch refuses the credentials: {0}")]
    WrongKey(String),
    /// Key or user may not do what is needed.
    #[error("the key or user lacks {}", listed(.0, "; "))]
    NoPrivileges(Vec<String>),
    /// Names are missing.
    #[error("Elasticsearch is not set up for profiles, missing: {}", listed(.0, ", "))]
    NotSetUp(Vec<String>),
    /// A name stands for something else.
    #[error("{name}: expected {expected}, found {found}")]
    WrongPlace {
        /// Name.
        name: String,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: Place,
    },
}

/// The first few of many, and how many more there are.
fn listed(items: &[String], separator: &str) -> String {
    const MOST: usize = 4;
    let shown = items.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(separator);
    match items.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Problem {
    /// What a person can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Call(error) => return error.hint(),
            Self::TooOld(_) => "upgrade the cluster, or store on this machine with output.embedded",
            Self::WrongKey(_) => {
                "check output.elasticsearch.api_key; everflame setup --create-keys makes keys"
            }
            Self::NoPrivileges(_) => {
                "everflame setup prints what a key has to hold, and makes one with --create-keys"
            }
            Self::NotSetUp(_) => {
                "run everflame setup with the same configuration, or switch Universal Profiling on in Kibana"
            }
            Self::WrongPlace { .. } => {
                "something wrote before the cluster was set up: delete that index, then run everflame setup"
            }
        };
        Some(hint.into())
    }

    /// Whether asking again may give another answer without a person doing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_retryable())
    }
}

/// Finds out what a cluster is. `forced` is the generation of the settings, if they name one.
///
/// # Errors
/// When the cluster cannot be used for this purpose.
pub async fn examine(
    client: &Client,
    purpose: Purpose,
    forced: Option<Generation>,
) -> Result<Cluster, Problem> {
    let about = about(client).await?;
    let places = places(client).await?;
    let otel_template = has_otel_template(client).await?;
    let generation = forced.unwrap_or_else(|| choose(&about, &places, otel_template));
    let wanted = Wanted::new(generation);
    check_privileges(client, purpose, generation, &wanted, &places).await?;
    let (lookup_streams, levels) = wanted.check(generation, &places, otel_template)?;
    let shape = Shape { lookup_streams, ..Shape::of(generation) };
    Ok(Cluster { licence: licence(client).await?, about, shape, levels })
}

/// What a cluster says of itself.
///
/// # Errors
/// When it is no Elasticsearch, or one that is too old or refuses.
pub async fn about(client: &Client) -> Result<About, Problem> {
    let answer = match client.json(Method::GET, "/", None).await {
        Ok(answer) => answer,
        Err(CallError::Refused { status: 401, reason, .. }) => return Err(Problem::WrongKey(reason)),
        Err(CallError::Refused { status: 403, .. }) => {
            return Err(Problem::NoPrivileges(vec!["cluster privilege monitor".into()]));
        }
        Err(error) => return Err(error.into()),
    };
    let number = answer["version"]["number"].as_str().unwrap_or_default();
    let version = Version::parse(number).ok_or_else(|| CallError::Answer {
        host: client.address(),
        problem: format!("expected a version, found \"{number}\""),
    })?;
    if version < OLDEST {
        return Err(Problem::TooOld(version));
    }
    Ok(About { name: answer["cluster_name"].as_str().unwrap_or_default().to_owned(), version })
}

/// Profiling names of the cluster. Those that the key may not see are missing.
///
/// # Errors
/// When the cluster does not answer.
pub async fn places(client: &Client) -> Result<Places, Problem> {
    let answer = client.json(Method::GET, "/_resolve/index/profiling-*?expand_wildcards=all", None).await;
    let answer = match answer {
        Ok(answer) => answer,
        // A key without any right on these names.
        Err(CallError::Refused { status: 403 | 404, .. }) => return Ok(Places::new()),
        Err(error) => return Err(error.into()),
    };
    let mut places = Places::new();
    for (group, place) in
        [("indices", Place::Index), ("aliases", Place::Alias), ("data_streams", Place::Stream)]
    {
        let names = answer[group].as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str());
        places.extend(names.map(|name| (name.to_owned(), place)));
    }
    Ok(places)
}

async fn has_otel_template(client: &Client) -> Result<bool, Problem> {
    match client.json(Method::GET, &format!("/_index_template/{OTEL_TEMPLATE}"), None).await {
        Ok(_) => Ok(true),
        Err(CallError::Refused { status: 403 | 404, .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Type of the licence. Serverless has none, and a key may be forbidden to ask.
pub(super) async fn licence(client: &Client) -> Result<String, Problem> {
    match client.json(Method::GET, "/_license", None).await {
        Ok(answer) => Ok(answer["license"]["type"].as_str().unwrap_or_default().to_owned()),
        Err(CallError::Refused { .. }) => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}

/// Newer readers ask for the second generation only; before them, what is set up decides.
fn choose(about: &About, places: &Places, otel_template: bool) -> Generation {
    let classic = places.contains_key(Generation::Classic.names().events);
    let otel = otel_template || places.contains_key(Generation::Otel.names().events);
    if otel && (about.version >= FIRST_OTEL || !classic) { Generation::Otel } else { Generation::Classic }
}

/// Names that documents of a generation go to.
struct Wanted {
    /// Data streams, in the first generation with the down-sampled ones.
    streams: Vec<String>,
    lookups: Vec<&'static str>,
    first_level: String,
}

impl Wanted {
    fn new(generation: Generation) -> Self {
        let names = generation.names();
        let lookups = vec![names.stacktraces, names.stackframes, names.executables];
        let first_level = generation.sampled_events(1);
        let mut wanted =
            Self { streams: vec![names.events.into(), names.hosts.into()], lookups, first_level };
        match generation {
            Generation::Classic => {
                wanted.streams.extend((1..=LEVELS).map(|level| generation.sampled_events(level)));
                wanted.lookups.extend(names.queued_executables);
                wanted.lookups.extend(names.queued_frames);
            }
            Generation::Otel => wanted.streams.extend(wanted.lookups.drain(..).map(str::to_owned)),
        }
        wanted
    }

    fn all(&self) -> Vec<&str> {
        self.streams.iter().map(String::as_str).chain(self.lookups.iter().copied()).collect()
    }

    /// Whether look-up tables are streams, and whether there are levels.
    fn check(
        &self,
        generation: Generation,
        places: &Places,
        otel_template: bool,
    ) -> Result<(bool, bool), Problem> {
        // The templates of the second generation let streams appear with the first document.
        let appears = generation == Generation::Otel && otel_template;
        let mut missing = Vec::new();
        for name in &self.streams {
            match places.get(name.as_str()) {
                Some(Place::Stream) => {}
                Some(&found) => {
                    return Err(Problem::WrongPlace { name: name.clone(), expected: "a data stream", found });
                }
                None if appears => {}
                None => missing.push(name.clone()),
            }
        }
        for &name in &self.lookups {
            match places.get(name) {
                Some(Place::Stream | Place::Alias) => {}
                Some(&found) => {
                    return Err(Problem::WrongPlace { name: name.into(), expected: "an alias", found });
                }
                None => missing.push(name.to_owned()),
            }
        }
        if !missing.is_empty() {
            return Err(Problem::NotSetUp(missing));
        }
        let stacktraces = places.get(generation.names().stacktraces);
        let levels = places.contains_key(&self.first_level);
        Ok((generation == Generation::Otel || stacktraces == Some(&Place::Stream), levels))
    }
}

/// Asks whether the key or user may do what is needed; a cluster without security does not know the question.
async fn check_privileges(
    client: &Client,
    purpose: Purpose,
    generation: Generation,
    wanted: &Wanted,
    places: &Places,
) -> Result<(), Problem> {
    let names = wanted.all();
    let mut index = match purpose {
        Purpose::Read => vec![json!({ "names": names, "privileges": ["read"] })],
        Purpose::Write => vec![json!({ "names": names, "privileges": ["create_doc"] })],
    };
    if purpose == Purpose::Write {
        match generation {
            // Executables are updated in place.
            Generation::Classic => {
                index.push(json!({ "names": [generation.names().executables], "privileges": ["index"] }));
            }
            Generation::Otel => {
                let absent: Vec<&str> =
                    names.into_iter().filter(|name| !places.contains_key(*name)).collect();
                if !absent.is_empty() {
                    index.push(json!({ "names": absent, "privileges": ["auto_configure"] }));
                }
            }
        }
    }
    ask_privileges(client, &["monitor"], Value::Array(index)).await
}

/// Asks whether the key or user holds these privileges.
pub(super) async fn ask_privileges(client: &Client, cluster: &[&str], index: Value) -> Result<(), Problem> {
    let question = json!({ "cluster": cluster, "index": index });
    let answer = match client.json(Method::POST, "/_security/user/_has_privileges", Some(&question)).await {
        Ok(answer) => answer,
        Err(CallError::Refused { status: 401, reason, .. }) => return Err(Problem::WrongKey(reason)),
        // Without security the question is not known (400, 405), or is an error (500).
        Err(CallError::Refused { status: 400 | 404 | 405 | 500, .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let lacking = lacking(&answer);
    if lacking.is_empty() { Ok(()) } else { Err(Problem::NoPrivileges(lacking)) }
}

/// Privileges that an answer of `_has_privileges` denies, one line each.
fn lacking(answer: &Value) -> Vec<String> {
    let denied = |granted: &Value| -> Vec<String> {
        let all = granted.as_object().into_iter().flatten();
        all.filter(|(_, granted)| **granted == false).map(|(name, _)| name.clone()).collect()
    };
    let mut lacking: Vec<String> =
        denied(&answer["cluster"]).into_iter().map(|name| format!("cluster privilege {name}")).collect();
    let mut by_privilege: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, granted) in answer["index"].as_object().into_iter().flatten() {
        for privilege in denied(granted) {
            by_privilege.entry(privilege).or_default().push(name);
        }
    }
    lacking.extend(by_privilege.into_iter().map(|(privilege, names)| match names.as_slice() {
        [one] => format!("{privilege} on {one}"),
        [one, rest @ ..] => format!("{privilege} on {one} and {} more", rest.len()),
        [] => privilege,
    }));
    lacking
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(version: &str) -> About {
        let version = Version::parse(version).unwrap();
        About { name: "test".into(), version }
    }

    fn classic() -> Places {
        let wanted = Wanted::new(Generation::Classic);
        let streams = wanted.streams.iter().map(|name| (name.clone(), Place::Stream));
        streams.chain(wanted.lookups.iter().map(|&name| (name.to_owned(), Place::Alias))).collect()
    }

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(Version::parse("8.19.13"), Some(Version { major: 8, minor: 19, patch: 13 }));
        assert_eq!(Version::parse("9.6.0-SNAPSHOT").map(|v| v.to_string()).as_deref(), Some("9.6.0"));
        assert!(Version::parse("8.9.2").unwrap() < Version::parse("8.12.0").unwrap());
        for text in ["", "8", "eight.one", "8.x"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_generation_follows_what_readers_of_the_release_ask_for() {
        let none = Places::new();
        assert_eq!(choose(&about("8.19.0"), &classic(), false), Generation::Classic);
        assert_eq!(choose(&about("9.5.0"), &classic(), true), Generation::Classic);
        assert_eq!(choose(&about("9.6.0"), &classic(), true), Generation::Otel);
        assert_eq!(choose(&about("9.6.0"), &classic(), false), Generation::Classic);
        assert_eq!(choose(&about("8.19.0"), &none, true), Generation::Otel);
        assert_eq!(choose(&about("8.19.0"), &none, false), Generation::Classic);
    }

    #[test]
    fn what_is_missing_or_something_else_is_named() {
        let wanted = Wanted::new(Generation::Classic);
        let check = |places: &Places| wanted.check(Generation::Classic, places, false);
        assert_eq!(check(&classic()).unwrap(), (false, true));

        let mut streams = classic();
        streams.insert("profiling-stacktraces".into(), Place::Stream);
        assert_eq!(check(&streams).unwrap(), (true, true));

        let told = |places: &Places| check(places).unwrap_err().to_string();
        assert_eq!(
            told(&Places::new()),
            "Elasticsearch is not set up for profiles, missing: profiling-events-all, profiling-hosts, \
             profiling-events-5pow01, profiling-events-5pow02 and 14 more"
        );
        let mut plain = classic();
        plain.insert("profiling-stackframes".into(), Place::Index);
        assert_eq!(told(&plain), "profiling-stackframes: expected an alias, found an index");
        let mut half = classic();
        half.remove("profiling-sq-leafframes");
        assert_eq!(told(&half), "Elasticsearch is not set up for profiles, missing: profiling-sq-leafframes");
    }

    #[test]
    fn streams_of_the_second_generation_may_appear_later() {
        let wanted = Wanted::new(Generation::Otel);
        assert_eq!(wanted.check(Generation::Otel, &Places::new(), true).unwrap(), (true, false));
        assert!(wanted.check(Generation::Otel, &Places::new(), false).is_err());
    }

    #[test]
    fn lacking_privileges_are_told_by_privilege() {
        let answer = json!({
            "cluster": { "monitor": false },
            "index": {
                "profiling-events-all": { "create_doc": false },
                "profiling-executables": { "create_doc": false, "index": true },
                "profiling-hosts": { "create_doc": true },
            },
        });
        assert_eq!(
            lacking(&answer),
            ["cluster privilege monitor", "create_doc on profiling-events-all and 1 more"]
        );
    }
}
