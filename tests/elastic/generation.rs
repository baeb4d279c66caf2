//! What a cluster is, found out on real ones.

use everflame::config::{Environment, Layers, OutputSection, SetupSection, resolve};
use everflame::store::elastic::generation::{Cluster as Found, Problem, Purpose, examine};
use everflame::store::elastic::{Client, Generation};
use serde_json::json;

use crate::elasticsearch::{Cluster, Kind};
use crate::program::setup;

/// A client as a configuration makes it.
fn client(url: &str, key: &str) -> Client {
    let settings = Layers::new(Environment::new())
        .flag("test", "output.elasticsearch.hosts", Some(url))
        .flag("test", "output.elasticsearch.api_key", Some(key))
        .settings();
    let OutputSection::Elasticsearch(output) = resolve::<SetupSection>(&settings).unwrap().output else {
        panic!("an output of Elasticsearch");
    };
    Client::new(&output).unwrap()
}

fn examined(url: &str, key: &str, purpose: Purpose, forced: Option<Generation>) -> Result<Found, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(examine(&client(url, key), purpose, forced))
}

#[test]
fn a_cluster_is_found_out() {
    for kind in [Kind::Basic, Kind::Trial] {
        let Some(cluster) = Cluster::take("what a cluster is", kind) else { return };
        let ask = |forced| examined(&cluster.url(), "", Purpose::Write, forced);
        let Err(Problem::NotSetUp(missing)) = ask(None) else { panic!("{:?}", ask(None)) };
        assert_eq!(missing.len(), 18);

        setup(&cluster.url(), &["--generation", "otel"], &[]).ended(0);
        let found = ask(None).unwrap();
        assert_eq!(found.shape.generation, Generation::Otel, "it is all there is");
        assert!(found.shape.lookup_streams && !found.levels);
        assert!(matches!(ask(Some(Generation::Classic)), Err(Problem::NotSetUp(_))));

        setup(&cluster.url(), &[], &[]).ended(0);
        let found = ask(None).unwrap();
        assert_eq!(found.shape.generation, Generation::Classic, "readers before 9.6 ask for it");
        assert!(!found.shape.lookup_streams && found.shape.sampled_streams && found.levels);
        assert_eq!(found.licence, format!("{kind:?}").to_lowercase());
        assert_eq!(found.about.version.to_string(), "8.19.13");
        assert_eq!(ask(Some(Generation::Otel)).unwrap().shape.generation, Generation::Otel);
    }
}

#[test]
fn a_cluster_of_elastics_and_one_with_tables_in_streams() {
    let Some(cluster) = Cluster::take("what a cluster of Elastic's is", Kind::Trial) else { return };
    cluster.set_up_by_elastic();
    let ask = || examined(&cluster.url(), "", Purpose::Read, None);
    assert!(!ask().unwrap().shape.lookup_streams);

    // As newer plugins do: a data stream of the alias's name.
    cluster.must("DELETE", "/.profiling-stacktraces-v001-000001", None);
    assert!(matches!(ask(), Err(Problem::NotSetUp(missing)) if missing == ["profiling-stacktraces"]));
    let template = json!({ "index_patterns": ["profiling-stacktraces"], "priority": 200, "data_stream": {} });
    cluster.put("/_index_template/profiling-stacktraces-ds", &template);
    cluster.must("PUT", "/_data_stream/profiling-stacktraces", None);
    assert!(ask().unwrap().shape.lookup_streams);
}

#[test]
fn a_stray_index_is_told() {
    let Some(cluster) = Cluster::take("a stray index", Kind::Basic) else { return };
    setup(&cluster.url(), &[], &[]).ended(0);
    cluster.must("DELETE", "/.profiling-executables-v001-000001", None);
    cluster.put("/profiling-executables/_doc/1", &json!({ "a": 1 }));
    let problem = examined(&cluster.url(), "", Purpose::Write, None).unwrap_err();
    assert_eq!(problem.to_string(), "profiling-executables: expected an alias, found an index");
    assert!(problem.hint().unwrap().contains("delete that index"));
}

#[test]
fn keys_are_asked_for_what_they_may() {
    let Some(cluster) = Cluster::take("what a key may", Kind::Secured) else { return };
    let password = [("ELASTIC_PASSWORD", Kind::Secured.password().unwrap())];
    setup(&cluster.url(), &["--username", "elastic"], &password).ended(0);
    let ask = |key: &str, purpose| examined(&cluster.url(), key, purpose, None);
    let key = |name: &str, privileges: &[&str]| {
        let indices = json!([{ "names": ["profiling-*"], "privileges": privileges }]);
        cluster.api_key(name, &json!({ "r": { "cluster": ["monitor"], "indices": indices } }))
    };

    let documented = key("documented", &["read", "write"]);
    assert_eq!(ask(&documented, Purpose::Write).unwrap().shape.generation, Generation::Classic);
    assert_eq!(ask(&documented, Purpose::Read).unwrap().licence, "basic");

    let reading = key("reading", &["read"]);
    assert!(ask(&reading, Purpose::Read).is_ok());
    let problem = ask(&reading, Purpose::Write).unwrap_err();
    let text = problem.to_string();
    assert!(text.contains("create_doc on profiling-events-5pow01 and 17 more"), "{text}");
    assert!(text.contains("index on profiling-executables"), "{text}");

    let writing = key("writing", &["create_doc", "index", "view_index_metadata"]);
    assert!(ask(&writing, Purpose::Write).is_ok());
    assert!(ask(&writing, Purpose::Read).unwrap_err().to_string().contains("read on "));

    let blind = cluster.api_key("blind", &json!({ "r": { "cluster": ["monitor"], "indices": [] } }));
    assert!(matches!(ask(&blind, Purpose::Write), Err(Problem::NoPrivileges(_))));
    let nothing = cluster.api_key("nothing", &json!({ "r": { "cluster": [], "indices": [] } }));
    assert!(ask(&nothing, Purpose::Write).unwrap_err().to_string().contains("cluster privilege monitor"));
    assert!(matches!(ask("bm90OmEta2V5", Purpose::Write), Err(Problem::WrongKey(_))));
}
