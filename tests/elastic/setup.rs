//! `everflame setup` on real clusters: fresh, set up, half set up, set up by others, with and without security.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::elasticsearch::{Cluster, Kind};
use crate::program::{Run, setup};

/// Parts of the first generation: policy, 9 and 11 templates, 14 streams, 8 indices.
const PARTS: usize = 43;

fn run(cluster: &Cluster, arguments: &[&str]) -> Run {
    match cluster.kind() {
        Kind::Secured => {
            let arguments = [&["--username", "elastic"], arguments].concat();
            setup(
                &cluster.url(),
                &arguments,
                &[("ELASTIC_PASSWORD", Kind::Secured.password().expect("a password"))],
            )
        }
        Kind::Basic | Kind::Trial => setup(&cluster.url(), arguments, &[]),
    }
}

/// Everything that a set-up could change, without what changes by itself.
fn state(cluster: &Cluster) -> Value {
    let names = "profiling-*,.profiling-*";
    json!({
        // Wildcards without a match are answered with 404.
        "components": cluster.call("GET", "/_component_template/profiling-*", None).body,
        "templates": cluster.call("GET", "/_index_template/profiling-*", None).body,
        "policies": cluster.get("/_ilm/policy"),
        "indices": cluster.get(&format!("/{names}?expand_wildcards=all&allow_no_indices=true")),
        "settings": cluster.get("/_cluster/settings"),
        "names": cluster.get(&format!("/_resolve/index/{names}?expand_wildcards=all")),
    })
}

/// Parts that were found in place. Some field types of the test server are stand-ins that read back as others; nothing else
/// may differ.
fn in_place(run: &Run) -> usize {
    for line in run.lines("differs") {
        let note = line.rsplit('\t').next().unwrap();
        for difference in note.split("; ").filter(|part| part.contains("expected")) {
            let stands_in = |wanted: &str, there: &str| {
                difference.contains(&format!("expected {wanted}"))
                    && difference.contains(&format!("found {there}"))
            };
            let stand_in = stands_in("version", "keyword") || stands_in("unsigned_long", "long");
            assert!(stand_in, "{line}");
        }
    }
    run.lines("present").len() + run.lines("differs").len()
}

#[test]
fn a_fresh_cluster_is_prepared_once() {
    for kind in [Kind::Basic, Kind::Trial] {
        let Some(cluster) = Cluster::take("a set-up on a fresh cluster", kind) else { return };
        let empty = state(&cluster);

        let check = run(&cluster, &["--check"]).ended(1);
        assert_eq!(check.lines("missing").len(), PARTS, "{check:?}");
        check.told("43 of 43 parts are not in place").told("hint: run everflame setup without --check");

        let dry = run(&cluster, &["--dry-run", "--create-keys"]).ended(0);
        assert_eq!(dry.lines("missing").len(), 0);
        assert_eq!(dry.out.lines().filter(|line| line.starts_with("PUT /")).count(), PARTS, "{dry:?}");
        dry.told("PUT /_index_template/profiling-events?create=true {\"")
            .told("PUT /_data_stream/profiling-events-5pow11\n")
            .told("POST /_security/api_key {\"metadata\"")
            .told("dry run: 45 calls would be made, nothing was changed");
        assert_eq!(state(&cluster), empty, "--check and --dry-run change nothing");

        let first = run(&cluster, &[]).ended(0);
        assert_eq!(first.lines("created").len(), PARTS, "{first:?}");
        first.told("43 of 43 parts created").told("collector   POST /_security/api_key");
        let prepared = state(&cluster);
        assert_ne!(prepared, empty);

        let second = run(&cluster, &[]).ended(0);
        assert_eq!(in_place(&second), PARTS, "{second:?}");
        second.told("nothing to do: all 43 parts are in place");
        assert_eq!(state(&cluster), prepared, "the second run changes nothing");
        run(&cluster, &["--check"]).ended(0).told("all 43 parts are in place");
    }
}

#[test]
fn what_is_removed_is_made_again_and_nothing_else() {
    let Some(cluster) = Cluster::take("a set-up on half a cluster", Kind::Basic) else { return };
    run(&cluster, &[]).ended(0);
    let whole = state(&cluster);
    for path in [
        "/.profiling-stacktraces-v001-000001",
        "/.profiling-sq-leafframes-v001",
        "/_data_stream/profiling-events-5pow03",
        "/_index_template/profiling-returnpads-private",
    ] {
        cluster.must("DELETE", path, None);
    }
    let check = run(&cluster, &["--check"]).ended(1);
    assert_eq!(check.lines("missing").len(), 4, "{check:?}");
    check.told("4 of 43 parts are not in place");
    let again = run(&cluster, &[]).ended(0);
    assert_eq!(again.lines("created").len(), 4, "{again:?}");
    assert_eq!(in_place(&again), PARTS - 4, "{again:?}");
    let now = state(&cluster);
    assert_eq!(now["templates"], whole["templates"]);
    assert_eq!(now["names"], whole["names"]);
}

#[test]
fn an_index_in_place_of_an_alias_is_left_for_a_person() {
    let Some(cluster) = Cluster::take("a set-up after a stray write", Kind::Basic) else { return };
    cluster.put("/profiling-stacktraces/_doc/1", &json!({ "Stacktrace.frame.ids": "x" }));
    let first = run(&cluster, &[]).ended(1);
    assert_eq!(first.lines("in the way").len(), 1, "{first:?}");
    first
        .told("profiling-stacktraces is an index: something wrote before the set-up")
        .told("error: 1 parts are not in place");
    assert_eq!(cluster.count("profiling-stacktraces"), 1, "nothing is deleted");
    cluster.must("DELETE", "/profiling-stacktraces", None);
    let second = run(&cluster, &[]).ended(0);
    assert_eq!(second.lines("created").len(), 1, "{second:?}");
}

#[test]
fn what_elastic_made_is_not_touched() {
    let Some(cluster) = Cluster::take("a set-up on a cluster of Elastic's", Kind::Trial) else { return };
    cluster.set_up_by_elastic();
    let before = state(&cluster);
    let first = run(&cluster, &[]).ended(0);
    first.told("nothing to do: all 43 parts are in place").told("Elastic's, kept");
    assert_eq!(first.lines("created").len(), 0, "{first:?}");
    assert_eq!(state(&cluster), before);

    // A person's own template is kept as well, and told.
    let mut own =
        cluster.get("/_component_template/profiling-hosts")["component_templates"][0]["component_template"]
            .clone();
    own["template"]["mappings"]["_meta"] = Value::Null;
    own["template"]["settings"]["index"]["refresh_interval"] = json!("1s");
    cluster.put("/_component_template/profiling-hosts", &own);
    let before = state(&cluster);
    run(&cluster, &[])
        .ended(0)
        .told("somebody's own, kept; ")
        .told("settings.refresh_interval: expected 10s, found 1s");
    assert_eq!(state(&cluster), before);
}

#[test]
fn a_cluster_with_the_plugin_switched_on_is_left_to_it() {
    let Some(cluster) = Cluster::take("a set-up beside Elastic's plugin", Kind::Basic) else { return };
    let on = json!({ "persistent": { "xpack.profiling.templates.enabled": true } });
    cluster.put("/_cluster/settings", &on);
    let before = state(&cluster);
    let run = run(&cluster, &[]).ended(1);
    assert_eq!(run.lines("left to Elastic").len(), PARTS, "{run:?}");
    run.told("error: 43 parts are not in place").told("xpack.profiling.templates.enabled");
    assert_eq!(state(&cluster), before);
}

#[test]
fn templates_of_an_older_everflame_are_renewed() {
    let Some(cluster) = Cluster::take("an upgrade", Kind::Basic) else { return };
    run(&cluster, &[]).ended(0);
    let part = "/_component_template/profiling-stacktraces";
    let mut old = cluster.get(part)["component_templates"][0]["component_template"].clone();
    let new = old.clone();
    old["version"] = json!(3);
    old["template"]["mappings"]["_meta"]["index-template-version"] = json!(3);
    cluster.put(part, &old);
    // An index from the older template.
    cluster.must("DELETE", "/.profiling-stacktraces-v001-000001", None);
    let alias = json!({ "aliases": { "profiling-stacktraces": { "is_write_index": true } } });
    cluster.put("/.profiling-stacktraces-v001-000001", &alias);
    let outdated = run(&cluster, &["--check"]).ended(0);
    outdated.told("2 of an older everflame");

    let renewed = run(&cluster, &[]).ended(0);
    assert_eq!(renewed.lines("renewed").len(), 2, "{renewed:?}");
    assert_eq!(cluster.get(part)["component_templates"][0]["component_template"], new);
    let alias = cluster.get("/_alias/profiling-stacktraces");
    let write =
        &alias[".profiling-stacktraces-v001-000002"]["aliases"]["profiling-stacktraces"]["is_write_index"];
    assert_eq!(write, true, "{alias}");
    run(&cluster, &[]).ended(0).told("nothing to do");
}

#[test]
fn without_ilm_data_streams_delete_by_themselves() {
    let Some(cluster) = Cluster::take("a set-up without ILM", Kind::Basic) else { return };
    let run_ = run(&cluster, &["--lifecycle", "data-stream"]).ended(0);
    assert_eq!(run_.lines("created").len(), PARTS - 1, "{run_:?}");
    let template = cluster.get("/_index_template/profiling-events");
    let retention =
        &template["index_templates"][0]["index_template"]["template"]["lifecycle"]["data_retention"];
    assert_eq!(retention, "60d", "{template}");
    let settings = cluster.get("/.profiling-stacktraces-v001-000001/_settings").to_string();
    assert!(!settings.contains("lifecycle"), "{settings}");
    run(&cluster, &["--lifecycle", "data-stream"]).ended(0).told("nothing to do: all 42 parts are in place");
}

#[test]
fn the_second_generation_is_prepared_when_wanted() {
    for kind in [Kind::Basic, Kind::Trial] {
        let Some(cluster) = Cluster::take("a set-up of the second generation", kind) else { return };
        let first = run(&cluster, &["--generation", "otel"]).ended(0);
        assert_eq!(first.lines("created").len(), 15, "{first:?}");
        run(&cluster, &["--generation", "otel"]).ended(0).told("nothing to do: all 15 parts are in place");
        // Both live side by side: the patterns of the first also match the names of the second.
        run(&cluster, &["--generation", "classic"]).ended(0);
        run(&cluster, &["--generation", "otel"]).ended(0).told("nothing to do: all 15 parts are in place");
        let stream = cluster.get("/_data_stream/profiling-events-all.otel-default");
        assert_eq!(stream["data_streams"][0]["template"], "profiling-events-otel@template", "{stream}");
    }
}

#[test]
fn keys_are_made_once_and_hold_what_their_roles_need() {
    let Some(cluster) = Cluster::take("keys", Kind::Secured) else { return };
    let first = run(&cluster, &["--create-keys"]).ended(0);
    let keys: Vec<&str> = first
        .out
        .lines()
        .filter_map(|line| line.trim().strip_prefix("output.elasticsearch.api_key: \"")?.strip_suffix('"'))
        .collect();
    assert_eq!(keys.len(), 2, "{}", first.err);
    let second = run(&cluster, &["--create-keys"]).ended(0);
    assert_eq!(second.out.matches("exists and was left alone").count(), 2, "{second:?}");
    for key in &keys {
        assert!(!second.out.contains(key), "a secret is shown once");
        let login = format!("ApiKey {key}");
        let call = |method: &str, path: &str, body: &str| {
            cluster.send_as(Some(&login), method, path, "application/json", body.as_bytes()).status
        };
        assert_eq!(call("GET", "/", ""), 200);
        assert_eq!(call("GET", "/profiling-events-all/_count", ""), 200);
        assert_eq!(call("PUT", "/profiling-sq-leafframes/_create/a", "{}"), 201);
        assert_eq!(call("DELETE", "/.profiling-stacktraces-v001-000001", ""), 403);
        let may_delete = call("DELETE", "/profiling-sq-leafframes/_doc/a", "");
        assert_eq!(may_delete, if *key == keys[0] { 403 } else { 200 });
        if may_delete == 403 {
            cluster.must("DELETE", "/profiling-sq-leafframes/_doc/a", None);
        }
    }
}

#[test]
fn credentials_that_will_not_do_are_told_with_what_is_needed() {
    let Some(cluster) = Cluster::take("a set-up with the wrong key", Kind::Secured) else { return };
    let with = |key: &str, arguments: &[&str]| {
        let key = format!("output.elasticsearch.api_key={key}");
        setup(&cluster.url(), &[&["-E", key.as_str()], arguments].concat(), &[])
    };
    let before = state(&cluster);
    with("bm90OmEta2V5", &[]).ended(1).told("hint: ");
    setup(&cluster.url(), &[], &[]).ended(1).told("hint: ");
    setup(&cluster.url(), &["--username", "elastic"], &[("ELASTIC_PASSWORD", "wrong-one")])
        .ended(1)
        .told("hint: ");

    let nothing = cluster.api_key("nothing", &json!({ "none": { "cluster": [], "indices": [] } }));
    with(&nothing, &[]).ended(1).told("monitor").told("hint: ");
    let documented = json!({ "collector": { "cluster": ["monitor"],
        "indices": [{ "names": ["profiling-*"], "privileges": ["read", "write"] }] } });
    let documented = cluster.api_key("documented", &documented);
    with(&documented, &[]).ended(1).told("manage_index_templates").told("manage on profiling-*");
    assert_eq!(state(&cluster), before, "nothing was changed");
    for key in [&nothing, &documented] {
        let told = with(key, &[]);
        assert!(
            !told.out.contains(key.as_str()) && !told.err.contains(key.as_str()),
            "keys are never printed"
        );
    }
}

#[test]
fn what_is_not_elasticsearch_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::{Read as _, Write as _};
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let page = "<html>It works!</html>";
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nServer: somebody\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            );
        }
    });
    let run = setup(&url, &[], &[]).ended(1);
    run.told("Elasticsearch").told("hint: ");
    assert_eq!(run.out, "");
    setup("http://127.0.0.1:1", &[], &[]).ended(1).told("127.0.0.1:1");
    setup("http://127.0.0.1:1", &["-E", "output.embedded.data_dir=/tmp"], &[]).ended(2);
}

/// Dotted settings and field types of a template or index, in one form.
fn flat(value: &Value, path: &str, all: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                flat(value, &format!("{path}.{key}"), all);
            }
        }
        Value::Array(list) => {
            all.insert(path.to_owned(), list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        }
        Value::String(text) => {
            all.insert(path.to_owned(), text.to_lowercase());
        }
        other => {
            all.insert(path.to_owned(), other.to_string());
        }
    }
}

/// Settings and mappings of every index as the server sees them, by the name without its date.
fn indices(cluster: &Cluster) -> BTreeMap<String, BTreeMap<String, String>> {
    let all = cluster.get("/profiling-*,.profiling-*?expand_wildcards=all");
    let mut found = BTreeMap::new();
    for (name, index) in all.as_object().unwrap() {
        let mut parts = BTreeMap::new();
        flat(&index["mappings"], "mappings", &mut parts);
        flat(&index["settings"]["index"], "settings", &mut parts);
        flat(&index["aliases"], "aliases", &mut parts);
        let own =
            ["settings.uuid", "settings.creation_date", "settings.provided_name", "settings.version.created"];
        parts.retain(|path, _| !own.contains(&path.as_str()));
        let name = match name.strip_prefix(".ds-") {
            // `.ds-NAME-2026.01.31-000001`
            Some(stream) => stream[..stream.len() - "-2026.01.31-000001".len()].to_owned(),
            None => name.clone(),
        };
        found.insert(name, parts);
    }
    found
}

/// Paths in which ours differs from Elastic's on purpose, with the reason.
const DELIBERATE: &[(&str, &str)] = &[
    ("mappings._meta.index-template-version", "15 with the newer content, the node ships 14"),
    ("mappings._meta.index-version", "6 for events, as in template version 15"),
    ("mappings._meta.description", "inline templates carry it at the template"),
    ("settings.mode", "events in the mode for logs, as in template version 15"),
    ("settings.sort.", "events also by executable and, newest first, by time"),
    ("settings.mapping.", "limits that the mode for logs sets by itself"),
    ("mappings.properties.process.properties.executable.properties.name.type", "newer readers filter by it"),
    ("mappings.properties.Stacktrace.properties.sampling_frequency.", "newer readers group by it"),
    (
        "mappings.properties.profiling.properties.agent.properties.config.properties.sampling_frequency.type",
        "the agent reports it",
    ),
    ("mappings.properties.host.properties.name.type", "shown on the page of hosts"),
    ("mappings.properties.os.properties.type.type", "shown on the page of hosts"),
    ("mappings.properties.@timestamp.ignore_malformed", "said by the mode for logs"),
];

#[test]
fn ours_is_what_elastic_makes_but_for_what_is_listed() {
    for kind in [Kind::Trial, Kind::Basic] {
        let Some(cluster) = Cluster::take("ours beside Elastic's", kind) else { return };
        cluster.with_all_shards();
        cluster.set_up_by_elastic();
        let elastic = indices(&cluster);
        drop(cluster);
        let Some(cluster) = Cluster::take("ours beside Elastic's", kind) else { return };
        cluster.with_all_shards();
        run(&cluster, &[]).ended(0);
        let ours = indices(&cluster);
        assert_eq!(ours.keys().collect::<Vec<_>>(), elastic.keys().collect::<Vec<_>>(), "{kind:?}: names");
        let mut used = vec![false; DELIBERATE.len()];
        let mut surprises = Vec::new();
        for (name, theirs) in &elastic {
            let own = &ours[name];
            for path in theirs.keys().chain(own.keys().filter(|path| !theirs.contains_key(*path))) {
                if theirs.get(path) == own.get(path) {
                    continue;
                }
                match DELIBERATE.iter().position(|(listed, _)| path.starts_with(listed)) {
                    Some(entry) => used[entry] = true,
                    None => surprises.push(format!(
                        "{name}: {path}: {:?}, Elastic {:?}",
                        own.get(path),
                        theirs.get(path)
                    )),
                }
            }
        }
        assert!(surprises.is_empty(), "{kind:?}:\n{}", surprises.join("\n"));
        let idle: Vec<_> =
            DELIBERATE.iter().zip(&used).filter(|(_, used)| !**used).map(|(entry, _)| entry.0).collect();
        println!("{kind:?}: listed but equal: {idle:?}");
    }
}
