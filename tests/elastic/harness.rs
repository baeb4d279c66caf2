//! The harness itself: a cluster is what it was asked to be, and clean.

use serde_json::json;

use crate::elasticsearch::{Cluster, Kind};

fn check(kind: Kind, licence: &str) {
    for round in 0..2 {
        let Some(cluster) = Cluster::take("the harness", kind) else { return };
        assert_eq!(cluster.get("/_license")["license"]["type"], licence);
        assert_eq!(cluster.count("test-left"), 0, "round {round}: something was left");
        assert_eq!(cluster.call("GET", "/_component_template/test-part", None).status, 404);
        cluster.put("/_component_template/test-part", &json!({ "template": { "settings": {} } }));
        cluster.put("/test-left/_doc/1", &json!({ "a": 1 }));
        assert_eq!(cluster.count("test-left"), 1);
        cluster.put("/test-left/_settings", &json!({ "index.blocks.read_only_allow_delete": true }));
    }
}

#[test]
fn a_basic_cluster_is_clean_each_time() {
    check(Kind::Basic, "basic");
}

#[test]
fn a_trial_cluster_is_clean_each_time() {
    check(Kind::Trial, "trial");
}

#[test]
fn a_secured_cluster_is_clean_and_refuses_strangers() {
    check(Kind::Secured, "basic");
    let Some(cluster) = Cluster::take("the harness", Kind::Secured) else { return };
    assert_eq!(cluster.send_as(None, "GET", "/", "application/json", b"").status, 401);
    let key = cluster.api_key("test", &json!({ "none": { "cluster": ["monitor"] } }));
    let login = format!("ApiKey {key}");
    assert_eq!(cluster.send_as(Some(&login), "GET", "/", "application/json", b"").status, 200);
    drop(cluster);
    let Some(cluster) = Cluster::take("the harness", Kind::Secured) else { return };
    assert_eq!(
        cluster.send_as(Some(&login), "GET", "/", "application/json", b"").status,
        401,
        "the key is left"
    );
}

#[test]
fn what_elastic_creates_is_there() {
    let Some(cluster) = Cluster::take("Elastic's own templates", Kind::Trial) else { return };
    cluster.set_up_by_elastic();
    let streams = cluster.get("/_data_stream/profiling-*");
    assert_eq!(streams["data_streams"].as_array().unwrap().len(), 14);
}
