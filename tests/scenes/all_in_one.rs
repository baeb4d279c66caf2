//! The whole path: sample real programs, read the API, drive the page, stop, start again, find the data.

use serde_json::Value;

use crate::programs::{C, GO, Program, RUST, Truth};
use crate::scene::{Beside, Scene, may_profile, run};
use crate::shares::{Graph, TOO_FAR, deviation};

/// Samples per second and CPU: enough for tight intervals in a short run.
const HZ: &str = "97";

/// Seconds that the programs run.
fn seconds() -> u32 {
    std::env::var("EVERFLAME_TRUTH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// The run of a program with this process number, for other scenes may run the same program.
fn graph(scene: &Scene, program: &Program, pid: u32) -> Graph {
    let filter = format!("process: \"{}\" and pid: {pid}", program.name);
    Graph::new(
        &scene.api(&format!("/api/v1/flamegraph?from=now-1h&to=now&by=process&filter={}", encode(&filter))),
    )
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn counter(status: &Value, name: &str) -> u64 {
    let counters = status["agent"]["counters"].as_array().expect("the agent's counters");
    let found = counters
        .iter()
        .find(|c| c["name"] == name)
        .unwrap_or_else(|| panic!("no counter {name}: {status:#}"));
    found["value"].as_u64().expect("a number")
}

/// One line of the truth table; panics where the truth is missed.
fn check(scene: &mut Scene, program: &Program, truth: Truth) {
    let pid = truth.pid;
    let expected = truth.cpu_seconds * HZ.parse::<f64>().expect("a number");
    let mut last = None;
    scene.wait_with(&format!("the samples of {} with names", program.name), |scene| {
        let graph = graph(scene, program, pid);
        let named = graph.through(program.alpha) > 0 && graph.through(program.delta) > 0;
        // The last window arrives within the report interval. A few hundred samples may miss the expectation by a tenth.
        let arrived = graph.samples as f64 > expected * 0.85;
        last = Some(graph);
        named && arrived
    });
    let graph = last.expect("asked at least once");
    let (alpha, delta) = (graph.through(program.alpha), graph.through(program.delta));
    let complete = graph.complete as f64 / graph.samples as f64;
    let branches = alpha + delta;
    let deviation = deviation(alpha, branches, truth.alpha);
    println!(
        "{:<11} {:>6} samples, {:>6.2} % of those expected, {:>6.2} % complete, {:>6.2} % in a known chain, share of alpha {:.4}, true {:.4}: {deviation:.2} σ, {} the 99 % interval",
        program.name,
        graph.samples,
        graph.samples as f64 / expected * 100.0,
        complete * 100.0,
        branches as f64 / graph.samples as f64 * 100.0,
        alpha as f64 / branches as f64,
        truth.alpha,
        if deviation < 2.58 { "inside" } else { "outside" },
    );
    assert!(complete >= 0.99, "{}: complete {complete}\n{}", program.name, graph.largest(20));
    assert!(
        deviation < TOO_FAR,
        "{}: alpha {alpha} of {branches}, true share {}\n{}",
        program.name,
        truth.alpha,
        graph.largest(20)
    );
    // What is in neither chain is the loop itself and the entry and exit of the program.
    assert!(
        branches as f64 >= graph.samples as f64 * 0.98,
        "{}: {branches} of {}\n{}",
        program.name,
        graph.samples,
        graph.largest(20)
    );
    let rooted: u64 = graph
        .stacks()
        .filter(|(path, _)| path.first().is_some_and(|first| program.entries.contains(first)))
        .map(|(_, own)| own)
        .sum();
    assert!(
        rooted as f64 >= graph.samples as f64 * 0.99,
        "{}: {rooted} of {} start at an entry\n{}",
        program.name,
        graph.samples,
        graph.largest(20)
    );
}

#[test]
fn known_programs_are_seen_by_name_with_their_shares_and_survive_a_restart() {
    if !may_profile("known_programs_are_seen_by_name_with_their_shares_and_survive_a_restart") {
        return;
    }
    for program in [&C, &RUST, &GO] {
        program.path();
    }
    let mut scene =
        Scene::all_in_one(&["--samples-per-second", HZ, "-E", "pf-host-agent.reporter-interval=1s"]);
    scene.wait_with("the agent to sample", |scene| {
        let status = scene.api("/api/v1/status");
        status["agent"]["running"] == true && counter(&status, "ticks") > 0
    });
    let running: Vec<_> = [&C, &RUST, &GO].map(|program| (program, program.start(seconds(), 2))).into();
    let truths: Vec<_> = running.into_iter().map(|(program, running)| (program, running.truth())).collect();
    for (program, truth) in &truths {
        check(&mut scene, program, *truth);
    }
    kernel_frames_have_names(&scene);
    crate::browser::drive(&scene, &C);

    // The balance holds at rest: stop, and ask the store what the agent said it stored.
    let before = scene.api("/api/v1/status");
    let status = scene.stop();
    assert!(status.success(), "everflame ended with {status}\n{}", scene.log());
    let balance = Balance::from_log(&scene.log());
    println!("{}", balance.line);
    assert_eq!(
        balance.ticks,
        balance.stored + balance.dropped,
        "ticks = stored + counted drops\n{}",
        scene.log()
    );
    assert!(balance.ticks >= counter(&before, "ticks"));

    scene.start(&["--no-agent"]);
    let after = scene.api("/api/v1/status");
    assert_eq!(after["store"]["samples"].as_u64(), Some(balance.stored), "{after:#}\n{}", scene.log());
    for (program, truth) in &truths {
        let graph = graph(&scene, program, truth.pid);
        assert!(
            graph.through(program.alpha) > 0,
            "{} is gone after the restart\n{}",
            program.name,
            graph.largest(10)
        );
    }
    assert!(scene.stop().success());
}

fn kernel_frames_have_names(scene: &Scene) {
    let answer = scene.api("/api/v1/functions?from=now-1h&to=now&limit=10000");
    let kinds = answer["functions"]["kind"].as_array().expect("kinds");
    let names = answer["functions"]["name"].as_array().expect("names");
    let kernel: Vec<&str> = kinds
        .iter()
        .zip(names)
        .filter(|(kind, _)| **kind == 4)
        .map(|(_, name)| answer["strings"][name.as_u64().expect("an index") as usize].as_str().expect("text"))
        .collect();
    let named = kernel.iter().filter(|name| !name.contains("+0x")).count();
    assert!(
        named > 0 && named * 100 >= kernel.len() * 95,
        "{named} of {} kernel functions have names: {kernel:?}",
        kernel.len()
    );
}

/// The agent's last word in the log.
#[derive(Debug)]
struct Balance {
    line: String,
    ticks: u64,
    stored: u64,
    dropped: u64,
}

impl Balance {
    fn from_log(log: &str) -> Self {
        let line = log
            .lines()
            .rev()
            .find(|line| line.contains("loss balance"))
            .unwrap_or_else(|| panic!("no balance in the log\n{log}"));
        let number = |key: &str| {
            line.split(' ')
                .find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
                .and_then(|value| value.parse().ok())
                .unwrap_or_else(|| panic!("no {key} in {line}"))
        };
        Self {
            line: line.to_owned(),
            ticks: number("ticks"),
            stored: number("stored"),
            dropped: number("dropped"),
        }
    }
}

#[test]
fn without_an_agent_the_page_says_so_and_everything_else_works() {
    let mut scene = Scene::all_in_one(&["--no-agent"]);
    let status = scene.api("/api/v1/status");
    assert_eq!(status["agent"]["running"], false, "{status:#}");
    let graph = scene.api("/api/v1/flamegraph?from=now-15m&to=now");
    assert_eq!(graph["samples"], 0);
    assert!(scene.log().contains(&scene.web), "the summary names the page\n{}", scene.log());
    assert!(scene.stop().success());
}

#[test]
fn a_second_process_on_the_same_store_is_told_who_holds_it() {
    let mut scene = Scene::all_in_one(&["--no-agent"]);
    let data = scene.data_dir();
    let arguments =
        ["all-in-one", "--no-agent", "--web", "127.0.0.1:0", "--collector", "127.0.0.1:0", "--data-dir"];
    let (code, _, err) = crate::scene::run(&[&arguments[..], &[data.to_str().expect("text")]].concat(), &[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("in use") && err.contains(&scene.pid().to_string()) && err.contains("hint:"),
        "{err}"
    );
    assert!(scene.stop().success());
}

#[test]
fn a_taken_port_is_one_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let (code, _, err) = crate::scene::run(
        &["all-in-one", "--no-agent", "--web", &address, "--data-dir", data.to_str().expect("text")],
        &[],
    );
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&address) && err.contains("in use") && err.contains("hint:"), "{err}");
}

#[test]
fn requests_of_foreign_pages_are_refused() {
    let mut scene = Scene::all_in_one(&["--no-agent"]);
    let web = scene.web.clone();
    let ask = |headers: &[(&str, &str)]| {
        crate::http::request(&web, "GET", "/api/v1/status", headers, b"").expect("an answer").status
    };
    assert_eq!(ask(&[("Host", &web)]), 200);
    assert_eq!(ask(&[("Host", "evil.example")]), 403);
    assert_eq!(ask(&[("Host", &web), ("Origin", "http://evil.example")]), 403);
    assert_eq!(ask(&[("Host", &web), ("Origin", &format!("http://{web}"))]), 200);
    assert!(scene.stop().success());
}

#[test]
fn a_wrong_token_and_a_malformed_export_are_refused_and_the_connection_survives() {
    let mut scene = Scene::all_in_one(&["--no-agent", "-E", "pf-elastic-collector.auth.secret_token=right"]);
    let collector = scene.collector.clone();
    let post = |token: &str, body: &[u8]| {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("Host", collector.as_str()),
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/x-protobuf"),
        ];
        crate::http::request(&collector, "POST", "/v1development/profiles", &headers, body)
            .expect("an answer")
    };
    assert_eq!(post("wrong", b"").status, 401);
    let malformed = post("right", b"\x0a\x02\x12\x05");
    assert_eq!(malformed.status, 400, "{malformed:?}");
    assert!(malformed.body.contains("resource_profiles"), "{malformed:?}");
    assert_eq!(post("right", b"").status, 200);
    assert_eq!(crate::http::get(&collector, "/live").expect("an answer").status, 200);
    assert!(scene.stop().success());
}

#[test]
fn an_agent_of_its_own_reports_over_the_network() {
    if !may_profile("an_agent_of_its_own_reports_over_the_network") {
        return;
    }
    let mut scene = Scene::all_in_one(&["--no-agent", "-E", "pf-elastic-collector.auth.secret_token=right"]);
    let collector = scene.collector.clone();
    let agent = Beside::start(&[
        "agent",
        "-config",
        "/dev/null",
        "-collection-agent",
        &collector,
        "-secret-token=right",
        "-disable-tls",
        "-samples-per-second",
        HZ,
        "-reporter-interval=1s",
    ]);
    let running = C.start(3, 1);
    let truth = running.truth();
    scene.wait_with("samples from the network", |scene| {
        graph(scene, &C, truth.pid).samples as f64 > truth.cpu_seconds * 97.0 * 0.5
    });
    let (code, log) = agent.stop();
    assert_eq!(code, Some(0), "{log}");
    let balance = Balance::from_log(&log);
    assert_eq!(balance.ticks, balance.stored + balance.dropped, "{log}");
    let status = scene.api("/api/v1/status");
    assert_eq!(status["store"]["samples"].as_u64(), Some(balance.stored), "{status:#}\n{log}");
    assert!(scene.stop().success());
}

#[test]
fn an_agent_with_a_wrong_token_says_so_waits_and_ends() {
    if !may_profile("an_agent_with_a_wrong_token_says_so_waits_and_ends") {
        return;
    }
    let mut scene = Scene::all_in_one(&["--no-agent", "-E", "pf-elastic-collector.auth.secret_token=right"]);
    let (code, _, err) = run(
        &[
            "agent",
            "-config",
            "/dev/null",
            "-collection-agent",
            &scene.collector,
            "-secret-token=wrong",
            "-disable-tls",
            "-reporter-interval=500ms",
            // Ten minutes otherwise.
            "-private-refused-wait=1s",
        ],
        &[],
    );
    assert_eq!(code, Some(1), "{err}");
    for part in [
        "the receiver takes nothing from this agent",
        "authentication failed",
        "check the secret token against the receiver's",
        "ending after a wait",
        "error: the collector takes nothing from this agent",
    ] {
        assert!(err.contains(part), "{part} in {err}");
    }
    // Everything that ticked is counted, and the collector was asked once.
    let balance = Balance::from_log(&err);
    assert!(balance.ticks > 0 && balance.stored == 0 && balance.dropped == balance.ticks, "{err}");
    assert_eq!(err.matches("authentication failed").count(), 3, "{err}");
    assert!(scene.stop().success());
}

#[test]
fn captured_exports_of_other_agents_show_up() {
    let mut scene = Scene::all_in_one(&["--no-agent"]);
    let request =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/otlp/go/request-001.otlp.pb"))
            .expect("the fixture");
    let headers = [("Host", scene.collector.as_str()), ("Content-Type", "application/x-protobuf")];
    let answer =
        crate::http::request(&scene.collector, "POST", "/v1development/profiles", &headers, &request)
            .expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    scene.wait_with("the captured stacks", |scene| {
        let answer = scene.api("/api/v1/flamegraph?from=now-10000d&to=now&by=process");
        let graph = Graph::new(&answer);
        graph.samples > 0 && graph.through(&["main.main", "main.run"]) > 0
    });
    assert!(scene.stop().success());
}
