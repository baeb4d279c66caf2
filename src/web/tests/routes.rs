//! Answers and errors of every route.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flate2::read::GzDecoder;

use super::*;
use crate::model::{Dimension, Filter, Pattern};
use crate::store;

async fn snapshot(uri: &str) -> serde_json::Value {
    let (status, json) = get_json(uri).await;
    assert_eq!(status, StatusCode::OK, "{json}");
    json
}

/// Columns on one line each: a table of numbers is read across.
fn compact(json: &serde_json::Value) -> String {
    fn lines(text: &mut String, path: &str, value: &serde_json::Value) {
        match value {
            serde_json::Value::Object(map) if !map.is_empty() => {
                for (name, value) in map {
                    lines(text, &format!("{path}.{name}"), value);
                }
            }
            other => {
                let _ = writeln!(text, "{}: {other}", path.trim_start_matches('.'));
            }
        }
    }
    let mut text = String::new();
    lines(&mut text, "", json);
    text
}

#[tokio::test]
async fn status_says_what_runs() {
    insta::assert_snapshot!(compact(&snapshot("/api/v1/status").await), @r#"
        agent.counters: [{"name":"ticks","value":100},{"name":"stored","value":100}]
        agent.cpus: 2
        agent.frequency_hz: 20
        agent.hint: null
        agent.kernel: "6.18.44"
        agent.notes: []
        agent.object: "modern"
        agent.pool_bytes: 4194304
        agent.problem: null
        agent.processes: 51
        agent.resident_bytes: 41000000
        agent.running: true
        agent.tables: 130
        collector: null
        now: 1763734000000
        started: 1763734000000
        store.description: "memory"
        store.dictionary_bytes: 500
        store.event_bytes: 1000
        store.executables: 3
        store.first: 1763733000000
        store.frames: 7
        store.last: 1763733999000
        store.refusing: null
        store.samples: 25
        store.stacks: 6
        version: "0.1.0"
        "#);
}

#[tokio::test]
async fn values_are_largest_first() {
    insta::assert_snapshot!(compact(&snapshot("/api/v1/values?field=process").await), @r#"values: [{"samples":15,"value":"nginx"},{"samples":10,"value":"app"}]"#);
    insta::assert_snapshot!(compact(&snapshot("/api/v1/values?field=process&prefix=ng").await), @r#"values: [{"samples":15,"value":"nginx"}]"#);
    let filtered = snapshot("/api/v1/values?field=process&filter=pid:+1&prefix=a&limit=1").await;
    insta::assert_snapshot!(compact(&filtered), @r#"values: [{"samples":10,"value":"app"}]"#);
}

#[tokio::test]
async fn a_timeline_has_round_buckets_and_a_rest() {
    let json = snapshot("/api/v1/timeline?by=process&buckets=4&top=1").await;
    insta::assert_snapshot!(compact(&json), @r#"
        buckets: 4
        complete: 22
        cpu_ns: 1250000000
        from: 1763733100000
        groups: 2
        hosts: 1
        other.group: ""
        other.samples: [10,0,0,0]
        other.total: 10
        precision.exact: true
        samples: 25
        series: [{"group":"nginx","samples":[15,0,0,0],"total":15}]
        start: 1763733000000
        to: 1763734000000
        width: 300000
        "#);
}

#[tokio::test]
async fn a_flamegraph_is_columns_in_depth_first_order() {
    insta::assert_snapshot!(compact(&snapshot("/api/v1/flamegraph").await), @r#"
        complete: 22
        cpu_ns: 1250000000
        folded_nodes: 0
        from: 1763733100000
        functions.file: [0,0,3,0,3,3,3,3,0,3]
        functions.inlined: [0,0,0,0,0,0,0,1,0,0]
        functions.key: ["","9b725806eb2b8ee8","504d28bc63107ccf","8bcf6aef33f63c21","68082b2b6b0865f9","e7b86bf8a03124a9","6bbcac21a8a2b6e1","6bdd3170d97cc3ae","72b677766f2cdfde","67f8dbe14763a00a"]
        functions.kind: [256,257,128,3,3,4,3,3,257,3]
        functions.library: [0,0,0,5,1,9,1,1,0,1]
        functions.name: [0,1,2,4,7,8,10,11,12,13]
        functions.reason: [0,0,0,6,0,0,0,0,0,0]
        nodes.folded.node: []
        nodes.folded.nodes: []
        nodes.folded.samples: []
        nodes.function: [0,1,2,3,4,3,5,6,7,8,4,9,9,6,7,6,7]
        nodes.line: [0,0,0,0,10,0,0,30,5,0,10,40,40,30,5,30,5]
        nodes.parent: [0,0,1,2,1,4,5,4,7,0,9,10,11,12,13,10,15]
        nodes.self: [0,0,0,3,0,0,2,0,5,0,0,1,0,0,4,0,10]
        nodes.total: [25,10,3,3,7,2,2,5,5,15,15,5,4,4,4,10,10]
        precision.exact: true
        samples: 25
        strings: ["","app","[truncated: no unwind table for libfoo.so]","work.c","libfoo.so+0x4567","libfoo.so","executable has no symbols","main","vfs_read","vmlinux","work","step","nginx","recurse"]
        to: 1763734000000
        "#);
}

#[tokio::test]
async fn a_small_budget_folds_and_counts() {
    let json = snapshot("/api/v1/flamegraph?max_nodes=4&by=none").await;
    insta::assert_snapshot!(compact(&json), @r#"
        complete: 22
        cpu_ns: 1250000000
        folded_nodes: 7
        from: 1763733100000
        functions.file: [0,3,3,3,3]
        functions.inlined: [0,0,0,0,1]
        functions.key: ["","68082b2b6b0865f9","67f8dbe14763a00a","6bbcac21a8a2b6e1","6bdd3170d97cc3ae"]
        functions.kind: [256,3,3,3,3]
        functions.library: [0,2,2,2,2]
        functions.name: [0,1,4,5,6]
        functions.reason: [0,0,0,0,0]
        nodes.folded.node: [0,1,2]
        nodes.folded.nodes: [2,2,3]
        nodes.folded.samples: [3,2,4]
        nodes.function: [0,1,2,3,4]
        nodes.line: [0,10,40,30,5]
        nodes.parent: [0,0,1,1,3]
        nodes.self: [0,0,1,0,15]
        nodes.total: [25,22,5,15,15]
        precision.exact: true
        samples: 25
        strings: ["","main","app","work.c","recurse","work","step"]
        to: 1763734000000
        "#);
}

#[tokio::test]
async fn functions_are_sorted_and_lead_to_their_callers() {
    let json = snapshot("/api/v1/functions?sort=total&limit=4").await;
    insta::assert_snapshot!(compact(&json), @r#"
        complete: 22
        cpu_ns: 1250000000
        from: 1763733100000
        functions.file: [3,3,3,0]
        functions.inlined: [0,1,0,0]
        functions.key: ["68082b2b6b0865f9","6bdd3170d97cc3ae","6bbcac21a8a2b6e1","8bcf6aef33f63c21"]
        functions.kind: [3,3,3,3]
        functions.library: [2,2,2,7]
        functions.name: [1,4,5,6]
        functions.reason: [0,0,0,8]
        functions.self: [0,19,0,3]
        functions.total: [22,19,19,5]
        functions_in_range: 7
        precision.exact: true
        samples: 25
        strings: ["","main","app","work.c","step","work","libfoo.so+0x4567","libfoo.so","executable has no symbols"]
        to: 1763734000000
        "#);
    let key = json["functions"]["key"][0].as_str().unwrap();
    let json = snapshot(&format!("/api/v1/flamegraph?focus={key}")).await;
    insta::assert_snapshot!(compact(&json), @r#"
        callees.nodes.folded.node: []
        callees.nodes.folded.nodes: []
        callees.nodes.folded.samples: []
        callees.nodes.function: [0,1,2,3,3,4,5,4,5]
        callees.nodes.line: [0,0,0,40,40,30,5,30,5]
        callees.nodes.parent: [0,0,1,0,3,4,5,0,7]
        callees.nodes.self: [0,0,2,1,0,0,4,0,15]
        callees.nodes.total: [22,2,2,5,4,4,4,15,15]
        callers.nodes.folded.node: []
        callers.nodes.folded.nodes: []
        callers.nodes.folded.samples: []
        callers.nodes.function: [0,6,7]
        callers.nodes.line: [0,0,0]
        callers.nodes.parent: [0,0,0]
        callers.nodes.self: [0,7,15]
        callers.nodes.total: [22,7,15]
        complete: 22
        cpu_ns: 1250000000
        folded_nodes: 0
        from: 1763733100000
        functions.file: [3,0,3,3,3,3,0,0]
        functions.inlined: [0,0,0,0,0,1,0,0]
        functions.key: ["68082b2b6b0865f9","8bcf6aef33f63c21","e7b86bf8a03124a9","67f8dbe14763a00a","6bbcac21a8a2b6e1","6bdd3170d97cc3ae","9b725806eb2b8ee8","72b677766f2cdfde"]
        functions.kind: [3,3,4,3,3,3,257,257]
        functions.library: [2,5,8,2,2,2,0,0]
        functions.name: [1,4,7,9,10,11,2,12]
        functions.reason: [0,6,0,0,0,0,0,0]
        precision.exact: true
        samples: 25
        strings: ["","main","app","work.c","libfoo.so+0x4567","libfoo.so","executable has no symbols","vfs_read","vmlinux","recurse","work","step","nginx"]
        to: 1763734000000
        "#);
}

#[tokio::test]
async fn fields_are_all_dimensions() {
    let json = snapshot("/api/v1/fields").await;
    assert_eq!(json["fields"].as_array().unwrap().len(), Dimension::ALL.len());
    assert_eq!(json["fields"][0]["aliases"], serde_json::json!(["process", "executable", "exe"]));
}

#[tokio::test]
async fn mistakes_are_answered_with_a_sentence_a_cure_and_a_place() {
    for (uri, status, error, hint) in [
        ("/api/v1/status?x=1", 400, "unknown parameter \"x\"", Some("this address takes no parameters")),
        ("/api/v1/functions?limti=1", 400, "unknown parameter \"limti\"", Some("did you mean limit?")),
        ("/api/v1/functions?sort=name", 400, "sort: expected self or total, found \"name\"", None),
        ("/api/v1/functions?limit=0", 400, "limit: expected a number from 1 to 1000000, found \"0\"", None),
        ("/api/v1/values", 400, "field: expected a field, found nothing", Some("write field=process")),
        (
            "/api/v1/timeline?by=thred",
            400,
            "by: expected a field, found \"thred\"",
            Some("did you mean thread?"),
        ),
        (
            "/api/v1/timeline?from=soon",
            400,
            "from: expected milliseconds since 1970 or a time like now-15m, found \"soon\"",
            Some("units are s, m, h, d and w: now-15m, now-2h, now-7d"),
        ),
        (
            "/api/v1/timeline?from=2&to=1",
            400,
            "from: expected a time before \"to\" (1 ms), found 2 ms",
            Some("swap the two ends"),
        ),
        (
            "/api/v1/flamegraph?focus=0123456789abcdef",
            404,
            "focus: no function with key \"0123456789abcdef\" in this range",
            Some("take a key from /api/v1/functions with the same range and filter"),
        ),
        (
            "/api/v1/flamegrap",
            404,
            "no such address: /api/v1/flamegrap",
            Some("did you mean /api/v1/flamegraph?"),
        ),
        ("/no/such.js", 404, "no such address: /no/such.js", None),
    ] {
        let (found, json) = get_json(uri).await;
        assert_eq!(
            (found.as_u16(), json["error"].as_str().unwrap(), json["hint"].as_str()),
            (status, error, hint),
            "{uri}"
        );
    }
    let (status, json) = get_json("/api/v1/flamegraph?filter=process:").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        json,
        serde_json::json!({
            "error": "filter: expected a value after \"process:\", found end of text",
            "hint": "write process: nginx", "position": 8,
        })
    );
}

#[tokio::test]
async fn failures_of_the_store_keep_their_kind() {
    let full: fn() -> store::Error = || store::Error::Overloaded { waiting: 3 };
    let broken: fn() -> store::Error = || store::Error::Engine("page 7 is torn".into());
    let many: fn() -> store::Error = || store::Error::TooMuch { what: "range".into(), limit: 5 };
    for (failure, status) in [(full, 503), (broken, 500), (many, 400)] {
        let reader = MemoryReader { failure: Some(failure), ..MemoryReader::scene() };
        let (found, headers, bytes) = body(send(parts(reader), request("/api/v1/flamegraph")).await).await;
        assert_eq!(found.as_u16(), status);
        assert_eq!(headers.contains_key(header::RETRY_AFTER), status == 503);
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["error"], failure().to_string());
    }
    let reader = MemoryReader { failure: Some(broken), ..MemoryReader::scene() };
    assert_eq!(send(parts(reader), request("/ready")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(send(parts(MemoryReader::scene()), request("/ready")).await.status(), StatusCode::OK);
    assert_eq!(send(parts(MemoryReader::scene()), request("/live")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_filter_reaches_the_store() {
    let reader = MemoryReader::scene();
    let asked = reader.asked.clone();
    send(parts(reader), request("/api/v1/functions?filter=process%3A%20%22a%20b%22")).await;
    let expected = Filter::Match(Dimension::Executable, Pattern::exact("a b"));
    assert_eq!(*asked.lock().unwrap(), Some(expected));
}

#[tokio::test]
async fn other_methods_are_refused() {
    let get = send(parts(MemoryReader::scene()), request("/_profiling/flamegraph")).await;
    assert_eq!(
        (get.status(), &get.headers()[header::ALLOW]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
    );
    for uri in ["/api/v1/status", "/flamegraph"] {
        let mut post = request(uri);
        *post.method_mut() = http::Method::POST;
        let response = send(parts(MemoryReader::scene()), post).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{uri}");
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
    }
}

#[tokio::test]
async fn large_answers_are_packed_for_clients_that_can_read_them() {
    let plain = body(send(parts(MemoryReader::scene()), request("/api/v1/flamegraph")).await).await.2;
    let mut packed = request("/api/v1/flamegraph");
    packed.headers_mut().insert(header::ACCEPT_ENCODING, "gzip, br".parse().unwrap());
    let (_, headers, bytes) = body(send(parts(MemoryReader::scene()), packed).await).await;
    assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut GzDecoder::new(&bytes[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "condition not met in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_wait_for_their_turn_until_the_store_has_finished() {
    let hold = Arc::new(tokio::sync::Notify::new());
    let reader = MemoryReader { hold: Some(hold.clone()), ..MemoryReader::scene() };
    let (waiting, turns_taken) = (reader.waiting.clone(), reader.stacks_asked.clone());
    let app = router(WebState::new(Parts { max_queries: 1, ..parts(reader) }));
    let first = tokio::spawn(app.clone().oneshot(request("/api/v1/functions")));
    until(|| waiting.load(Ordering::SeqCst) == 1).await;
    let second = tokio::spawn(app.clone().oneshot(request("/api/v1/functions")));
    // Cheap routes are answered while the only turn is taken.
    assert_eq!(app.clone().oneshot(request("/api/v1/status")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(waiting.load(Ordering::SeqCst), 1);
    // The first client goes away: what its store reads still counts as a turn, so the second goes on waiting.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(waiting.load(Ordering::SeqCst), 1);
    hold.notify_one();
    until(|| turns_taken.load(Ordering::SeqCst) == 2).await;
    hold.notify_one();
    assert_eq!(second.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_stops_when_its_connection_is_closed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let hold = Arc::new(tokio::sync::Notify::new());
    let reader = MemoryReader { hold: Some(hold.clone()), ..MemoryReader::scene() };
    let (waiting, frames_asked) = (reader.waiting.clone(), reader.frames_asked.clone());
    let requests = Arc::new(AtomicUsize::new(0));
    let running = requests.clone();
    let count =
        axum::middleware::from_fn(move |request: axum::extract::Request, next: axum::middleware::Next| {
            let running = running.clone();
            async move {
                running.fetch_add(1, Ordering::SeqCst);
                let _running = memory::Waiting(running);
                next.run(request).await
            }
        });
    let app = router(WebState::new(Parts { max_queries: 1, ..parts(reader) })).layer(count);
    let listener = crate::net::Listener::bind("127.0.0.1:0", crate::net::Limits::default()).await.unwrap();
    let (address, shutdown) = (listener.address().to_string(), crate::net::Shutdown::new());
    let serving = tokio::spawn(listener.serve(app, shutdown.clone()));
    let ask = async || {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = "GET /api/v1/functions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let first = ask().await;
    until(|| waiting.load(Ordering::SeqCst) == 1).await;
    drop(first);
    until(|| requests.load(Ordering::SeqCst) == 0).await;
    // The second query gets the turn once the store is done with the first, whose names nobody asks for any more.
    let mut second = ask().await;
    until(|| {
        hold.notify_one();
        frames_asked.load(Ordering::SeqCst) > 0
    })
    .await;
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(frames_asked.load(Ordering::SeqCst), 1);
    shutdown.cancel();
    serving.await.unwrap();
}

async fn ask_profiling(path: &str, text: &str) -> (StatusCode, serde_json::Value) {
    let mut post = request(path);
    *post.method_mut() = http::Method::POST;
    *post.body_mut() = Body::from(text.to_owned());
    let (status, _, bytes) = body(send(parts(MemoryReader::scene()), post).await).await;
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn the_profiling_interface_answers_nothing_with_its_empty_shapes() {
    let (status, graph) = ask_profiling("/_profiling/flamegraph", "{}").await;
    assert_eq!(
        (status, &graph["Size"], &graph["Edges"]),
        (StatusCode::OK, &1.into(), &serde_json::json!([[]]))
    );
    let (status, functions) = ask_profiling("/_profiling/topn/functions", "{}").await;
    assert_eq!((status, &functions["topn"]), (StatusCode::OK, &serde_json::json!([])));
    let (status, stacks) = ask_profiling("/_profiling/stacktraces", "{}").await;
    assert_eq!((status, stacks.get("stack_traces")), (StatusCode::OK, None));
}

#[tokio::test]
async fn the_profiling_interface_refuses_with_the_words_of_elasticsearch() {
    let (status, json) = ask_profiling("/_profiling/flamegraph", r#"{"sample_size": 0}"#).await;
    let reason = "Validation Failed: 1: [sample_size] must be greater than 0, got: 0;";
    let kind = "action_request_validation_exception";
    let root = serde_json::json!({ "type": kind, "reason": reason });
    let error = serde_json::json!({ "root_cause": [root], "type": kind, "reason": reason });
    assert_eq!(
        (status, json),
        (StatusCode::BAD_REQUEST, serde_json::json!({ "error": error, "status": 400 }))
    );
    let query = r#"{"query": {"query_string": {"query": "a"}}}"#;
    let (status, json) = ask_profiling("/_profiling/stacktraces", query).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        json["error"]["reason"].as_str().unwrap().contains("query [query_string] is not supported"),
        "{json}"
    );
}
