//! Whole configurations: files and overrides in, merged result or messages out.

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn sample(name: &str) -> String {
    std::fs::read_to_string(format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"))).expect("sample file")
}

fn collector(yaml: &str, overrides: &[&str]) -> Settings {
    Layers::new(environment(&[("TOKEN", "s3cret"), ("ON", "true")]))
        .yaml("collector.yml", yaml)
        .overrides(overrides.iter().copied())
        .settings()
}

#[test]
fn collector_sample_loads_unchanged() {
    let settings = collector(&sample("pf-elastic-collector.yml"), &[]);
    resolve::<CollectorSection>(&settings).expect("the sample is right");
    assert_eq!(settings.unknown_keys(&[]), []);
    insta::assert_snapshot!(settings);
}

#[test]
fn symbolizer_sample_loads_unchanged() {
    let settings = collector(&sample("pf-elastic-symbolizer.yml"), &[]);
    resolve::<SymbolizerSection>(&settings).expect("the sample is right");
    assert_eq!(settings.unknown_keys(&[]), []);
    insta::assert_snapshot!(settings);
}

#[test]
fn all_in_one_sample_loads_with_every_comment_opened() {
    let text = sample("everflame.yml");
    let opened: String = text
        .lines()
        .map(|line| {
            let body = line.trim_start();
            let is_key = body.starts_with('#') && !body.starts_with("# ");
            if is_key { line.replacen('#', "", 1) + "\n" } else { line.to_owned() + "\n" }
        })
        .collect();
    for text in [text, opened] {
        let settings = Layers::new(environment(&[])).yaml("everflame.yml", &text).settings();
        resolve::<AllInOneSection>(&settings).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        assert_eq!(settings.unknown_keys(&[]), []);
    }
}

#[test]
fn later_layers_win_and_are_remembered() {
    let yaml = "pf-elastic-collector:\n  host: 0.0.0.0:1\n  auth.secret_token: ${TOKEN}\n  verbose: ${ON}\n\
                output:\n  elasticsearch:\n    hosts: [a, b]\n    ssl.enabled: false\n    ssl:\n      key: k\n      certificate: c\n";
    let overrides = [
        "pf-elastic-collector.host=0.0.0.0:8844",
        "pf-elastic-collector.ssl.enabled=true",
        "pf-elastic-collector.ssl.certificate=${NONE:/c.pem}",
        "pf-elastic-collector.ssl.key=/k.pem",
        "output.elasticsearch.api_key=id:${TOKEN}",
    ];
    let settings = collector(yaml, &overrides);
    let section = resolve::<CollectorSection>(&settings).expect("valid");
    assert_eq!(section.secret_token.as_ref().map(Secret::reveal).map(String::as_str), Some("s3cret"));
    assert!(section.verbose && section.tls.enabled);
    let OutputSection::Elasticsearch(output) = &section.output else { panic!("elasticsearch was meant") };
    assert_eq!(output.hosts, ["a", "b"]);
    assert_eq!(output.api_key.as_ref().map(Secret::reveal).map(String::as_str), Some("id:s3cret"));
    assert!(!format!("{section:?}{settings}").contains("s3cret"), "a secret was printed");
    insta::assert_snapshot!(settings);
}

#[test]
fn lists_can_be_overridden_in_both_forms() {
    for text in ["output.elasticsearch.hosts=x:1, y:2", "output.elasticsearch.hosts=[\"x:1\", 'y:2',]"] {
        let section = resolve::<CollectorSection>(&collector("", &[text])).expect("valid");
        let OutputSection::Elasticsearch(output) = section.output else { panic!("elasticsearch was meant") };
        assert_eq!(output.hosts, ["x:1", "y:2"], "{text}");
    }
}

#[test]
fn a_variable_cannot_inject_structure() {
    let settings = Layers::new(environment(&[("EVIL", "x\"\npf-elastic-collector.verbose: true\n#")]))
        .yaml("collector.yml", "pf-elastic-collector:\n  auth.secret_token: \"${EVIL}\"\n")
        .settings();
    let section = resolve::<CollectorSection>(&settings).expect("valid");
    assert!(!section.verbose);
    assert!(section.secret_token.is_some_and(|token| token.reveal().contains('\n')));
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let yaml = "pf-elastic-collector:\n  host: 8260\n  verbos: true\n  verbose: maybe\n  memory_limit: 5X\n  ssl:\n    enabled: true\n    supported_protocols: [SSLv3]\n\
                output:\n  elasticsearch:\n    hosts: []\n    api_key: \"${KEY:?no key}\"\n    username: u\n    compression_level: 11\n    ssl.verification_mode: half\n";
    let settings = collector(yaml, &["nonsense", "output.elasticsearch.max_retries=many"]);
    let problems = resolve::<CollectorSection>(&settings).expect_err("nothing here is right");
    insta::assert_snapshot!(problems);
    insta::assert_debug_snapshot!(settings.unknown_keys(&[]));
}

#[test]
fn what_comes_of_agent_metrics_is_told_and_defaults_are_not() {
    let yaml = "pf-elastic-collector:\n  memory_limit: 50M\n  agent_metrics:\n    disable: false\n    disabled: true\n    \
                write_all: true\n    addresses: [\"https://vendor.example\"]\n    api_key: s3cret\n";
    let settings = collector(yaml, &[]);
    let section = resolve::<CollectorSection>(&settings).expect("valid");
    assert_eq!(section.memory_limit, Some(ByteSize(200 << 20)));
    let told: Vec<String> = settings.warnings().iter().map(ToString::to_string).collect();
    assert!(!told.iter().any(|warning| warning.contains("s3cret")), "{told:?}");
    insta::assert_snapshot!(told.join("\n"));
    let sample = collector(&sample("pf-elastic-collector.yml"), &[]);
    resolve::<CollectorSection>(&sample).expect("valid");
    assert_eq!(sample.warnings(), []);
}

#[test]
fn the_agent_takes_file_then_environment_then_flags() {
    let file = "project-id: 73\ntags \"a:b;bad tag;c\"\nsecret-token abc\nverbose\ndisable-tls true\nunknown-one 1\n";
    let settings =
        Layers::new(environment(&[("PRODFILER_PROJECT_ID", "74"), ("PRODFILER_SECRET_TOKEN", "def")]))
            .plain("pf-host-agent.conf", AgentSection::NAME, file)
            .variables("PRODFILER", AgentSection::NAME)
            .flag("-project-id", "pf-host-agent.project-id", Some(75))
            .settings();
    let section = resolve::<AgentSection>(&settings).expect("valid");
    assert_eq!((section.project_id, section.verbose, section.disable_tls), (75, true, true));
    assert_eq!(section.tags, ["a:b", "c"]);
    let unknown = settings.unknown_keys(&[]);
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    insta::assert_snapshot!(settings);
}

fn agent(file: &str, variables: &[(&str, &str)]) -> Settings {
    let layers = Layers::new(environment(variables)).plain("pf-host-agent.conf", AgentSection::NAME, file);
    let prefixes = AgentSection::VARIABLES.into_iter();
    prefixes.fold(layers, |layers, prefix| layers.variables(prefix, AgentSection::NAME)).settings()
}

#[test]
fn agent_options_have_their_documented_bounds_and_words() {
    let check = |file: &str, expected: &str| {
        let problems = resolve::<AgentSection>(&agent(file, &[])).expect_err(file).to_string();
        assert!(problems.contains(expected), "{file}: {problems}");
    };
    check("project-id 0", "invalid project id 0 (need > 0 and < 4096)");
    check("project-id 4096", "invalid project id 4096 (need > 0 and < 4096)");
    check("probabilistic-threshold 0", "expected a whole number from 1 to 100, found \"0\"");
    check("probabilistic-threshold 101", "expected a whole number from 1 to 100");
    check("probabilistic-interval 59s", "expected a duration from 1m to 5m, found \"59s\"");
    check("samples-per-second 0", "samples-per-second");
    check("map-scale-factor 9", "expected a whole number from 0 to 8");
    check("frame-cache-size 1023", "expected a whole number from 1024 to 1048576");
    check("bpf-log-level 3", "expected a whole number from 0 to 2");
    check("reporter-jitter 1.1", "expected a number from 0 to 1");
    check("tracers python,cobol", "unknown tracer: cobol");
    check("pin-cpu-ids 0-", "such as 0-15,20,31, found \"0-\"");
    check("filter-pids nginx", "expected numbers of processes");
    check("env-vars A=b", "expected names of environment variables");
    check("max-cpu-percent 101", "expected a percentage from 0 to 100");
    check("max-memory 1M", "expected at least 24M, found 1M");
}

#[test]
fn agent_options_that_are_not_built_are_refused_unless_they_ask_for_nothing() {
    let refused = "off-cpu-threshold 0.01\nprobe-link kprobe:do_exit\npprof localhost:6060\nenable-pprof\nsave-cpuprofile\n\
                   obi-process-ctx\nbpffs-root /bpf\nelastic\nprivate-environment-type kvm\n";
    let problems = resolve::<AgentSection>(&agent(refused, &[])).expect_err("not built").0;
    assert_eq!(problems.len(), refused.lines().count(), "{problems:?}");
    assert!(problems.iter().all(|problem| problem.hint.is_some()));
    let nothing = "off-cpu-threshold 0\nenable-pprof false\nbpffs-root /sys/fs/bpf/\n";
    let settings = agent(nothing, &[]);
    resolve::<AgentSection>(&settings).expect("asks for nothing");
    assert_eq!(settings.unknown_keys(&[]), []);
}

#[test]
fn agent_options_that_do_little_are_told() {
    let settings = agent("tracers native,python\ntags \"a;b c\"\nbpf-log-size 65536\n", &[]);
    resolve::<AgentSection>(&settings).expect("valid");
    let told: Vec<String> = settings.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told.iter().any(|text| text.contains("tag \"b c\" is left out")), "{told:?}");
    assert!(told.iter().any(|text| text.contains("native has no effect")), "{told:?}");
}

#[test]
fn both_prefixes_of_variables_and_names_of_internal_builds_are_known() {
    let variables = [
        ("OTEL_PROFILING_AGENT_PROJECT_ID", "5"),
        ("OTEL_PROFILING_AGENT_FILTER_NAMES", "nginx, postgres"),
        ("PRODFILER_PROJECT_ID", "6"),
        ("PRODFILER_PRIVATE_SAMPLES_PER_SECOND", "97"),
    ];
    let settings = agent("private-reporter-interval 10s\nmap-scale-factor 2\n", &variables);
    let section = resolve::<AgentSection>(&settings).expect("valid");
    assert_eq!((section.project_id, section.samples_per_second), (6, 97));
    assert_eq!(section.reporter_interval, std::time::Duration::from_secs(10));
    assert_eq!(section.filter.names, ["nginx", "postgres"]);
    assert_eq!(section.table_pool, ByteSize(256 << 20));
    assert_eq!(settings.unknown_keys(&[]), []);
}

#[test]
fn agent_sample_loads_with_every_comment_opened() {
    let text = sample("pf-host-agent.conf");
    let opened: String = text
        .lines()
        .map(|line| {
            let is_key = line.starts_with('#') && !line.starts_with("# ");
            if is_key { line.replacen('#', "", 1) + "\n" } else { line.to_owned() + "\n" }
        })
        .collect();
    for text in [text, opened] {
        let settings = agent(&text, &[]);
        resolve::<AgentSection>(&settings).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        assert_eq!(settings.unknown_keys(&[]), []);
    }
}

#[test]
fn hostile_yaml_is_one_problem_and_no_panic() {
    for yaml in [
        "a: [",
        "- 1\n- 2",
        "\u{0}",
        "&a [*a]",
        "pf-elastic-collector: 5",
        "? {a: b}\n: c",
        "a: &x {b: 1}\nc: *x",
    ] {
        let settings = collector(yaml, &[]);
        let _ = resolve::<CollectorSection>(&settings);
        let _ = settings.unknown_keys(&[]);
    }
}

/// What `ssl` of the collector's listener leads to: mistakes, then warnings, each without its origin.
fn said_of_tls(ssl: &str) -> Vec<String> {
    let yaml = format!(
        "pf-elastic-collector.ssl: {{enabled: true, certificate: c, key: k, {ssl}}}\noutput.embedded.data_dir: d\n"
    );
    let settings = collector(&yaml, &[]);
    let mistakes =
        resolve::<CollectorSection>(&settings).err().map(|problems| problems.0).unwrap_or_default();
    let short = |problem: &Problem| {
        format!("{}: {}", problem.key.trim_start_matches("pf-elastic-collector.ssl."), problem.message)
    };
    mistakes.iter().chain(&settings.warnings()).map(short).collect()
}

#[test]
fn what_tls_cannot_do_is_said_by_name() {
    for (ssl, expected) in [
        ("supported_protocols: [TLSv1.3]", &[][..]),
        ("supported_protocols: [TLSv1.1, TLSv1.3]", &["supported_protocols: not spoken: TLSv1.1"]),
        (
            "supported_protocols: [TLSv1, TLSv1.1]",
            &["supported_protocols: expected TLSv1.2 or TLSv1.3 among them, found only TLSv1, TLSv1.1"],
        ),
        (
            "supported_protocols: [TLSv1.2], cipher_suites: [RSA-RC4-128-SHA, ECDHE-RSA-CHACHA20-POLY1205]",
            &[
                "cipher_suites: not offered: RSA-RC4-128-SHA (only suites with ephemeral keys and authenticated encryption are)",
            ],
        ),
        (
            "supported_protocols: [TLSv1.2, TLSv1.3], cipher_suites: [ECDHE-RSA-3DES-CBC3-SHA]",
            &[
                "cipher_suites: expected a suite that can be offered in TLS 1.2, found only ECDHE-RSA-3DES-CBC3-SHA",
            ],
        ),
        (
            "supported_protocols: [TLSv1.2, TLSv1.3], cipher_suites: [TLS-AES-128-GCM-SHA256]",
            &["cipher_suites: no suite of TLS 1.2 is named, so only TLS 1.3 is spoken"],
        ),
        (
            "cipher_suites: [ECDHE-RSA-AES-128-GCM-SHA256]",
            &["cipher_suites: has no effect: cipher suites are not configurable for TLS 1.3"],
        ),
        ("cipher_suites: [ROT13]", &["cipher_suites: invalid tls cipher suite 'ROT13'"]),
        ("curve_types: [P-521, P-384]", &["curve_types: not offered: P-521"]),
        (
            "curve_types: [P-521]",
            &["curve_types: expected P-256, P-384 or X25519 among them, found only P-521"],
        ),
        ("curve_types: [P-192]", &["curve_types: invalid tls curve type 'P-192'"]),
        (
            "client_authentication: maybe",
            &["client_authentication: unknown client authentication mode 'maybe'"],
        ),
        (
            "client_authentication: required",
            &[
                "certificate_authorities: expected at least one authority that signs certificates of clients, found none",
            ],
        ),
        ("certificate_authorities: [ca.pem]", &[]),
        (
            "key_passphrase: a, key_passphrase_path: b",
            &["key_passphrase_path: cannot set both key_passphrase and key_passphrase_path"],
        ),
    ] {
        assert_eq!(said_of_tls(ssl), expected, "{ssl}");
    }
}

#[test]
fn tls_of_a_client_is_refused_in_documented_words() {
    for (ssl, expected) in [
        ("verification_mode: half", "unknown verification mode 'half'"),
        ("renegotiation: often", "invalid tls renegotiation type 'often'"),
        ("key: k", "certificate file not configured"),
        ("certificate: c", "key file not configured"),
    ] {
        let settings = collector(&format!("output.elasticsearch.ssl: {{{ssl}}}"), &[]);
        let problems = resolve::<CollectorSection>(&settings).expect_err(ssl);
        assert_eq!(problems.0[0].message, expected, "{ssl}");
    }
    let settings = collector("output.elasticsearch.ssl.renegotiation: once", &[]);
    resolve::<CollectorSection>(&settings).expect("only a warning");
    assert_eq!(settings.warnings().len(), 1);
    // `enabled: false` is documented as "ignore custom settings".
    let settings = collector(
        "output.elasticsearch.ssl: {enabled: false, verification_mode: none, curve_types: [P-521]}",
        &[],
    );
    let section = resolve::<CollectorSection>(&settings).expect("valid");
    let OutputSection::Elasticsearch(output) = section.output else { panic!("elasticsearch was meant") };
    assert_eq!((output.tls, settings.warnings()), (ClientTls::default(), Vec::new()));
}

#[test]
fn a_listener_with_a_certificate_serves_tls_unless_told_otherwise() {
    for (ssl, expected) in [
        ("{certificate: c, key: k}", true),
        ("{certificate: c, key: k, enabled: false}", false),
        ("{enabled: false}", false),
        ("{}", false),
    ] {
        let settings = collector(&format!("pf-elastic-collector.ssl: {ssl}"), &[]);
        let section = resolve::<CollectorSection>(&settings).expect("valid");
        assert_eq!(section.tls.enabled, expected, "{ssl}");
    }
}

#[test]
fn pem_text_is_never_printed() {
    let text = "-----BEGIN PRIVATE KEY-----\\nSECRETSECRET\\n-----END PRIVATE KEY-----";
    let yaml = format!(
        "pf-elastic-collector.ssl: {{certificate: \"{text}\", key: \"{text}\", certificate_authorities: \"{text}\"}}\n"
    );
    let settings = collector(&yaml, &[]);
    let section = resolve::<CollectorSection>(&settings).expect("valid");
    let printed = format!("{settings}{section:?}");
    assert!(!printed.contains("SECRETSECRET"), "{printed}");
    assert_eq!(printed.matches("PEM REDACTED").count(), 6, "{printed}");
    assert_eq!(section.tls.certificate_authorities.len(), 1);
}

#[test]
fn a_page_of_metrics_is_at_an_address_or_at_a_path() {
    for (text, expected) in [
        ("localhost:6060", Some("localhost:6060")),
        ("unix:///tmp/c.sock", Some("unix:///tmp/c.sock")),
        ("/tmp/c.sock", Some("unix:///tmp/c.sock")),
        ("''", None),
    ] {
        let settings = collector(&format!("pf-elastic-collector.metrics.expvar_host: {text}"), &[]);
        let found = resolve::<CollectorSection>(&settings).expect("valid").metrics.expvar_host;
        assert_eq!(found.map(|address| address.to_string()).as_deref(), expected, "{text}");
    }
    for text in ["unix://", "6060", "tmp/c.sock"] {
        let settings = collector(&format!("pf-elastic-collector.metrics.expvar_host: '{text}'"), &[]);
        assert!(resolve::<CollectorSection>(&settings).is_err(), "{text}");
    }
}

#[test]
fn the_documented_override_switches_tls_on() {
    let certificate = ["pf-elastic-collector.ssl.certificate=c.pem", "pf-elastic-collector.ssl.key=k.pem"];
    for (overrides, missing) in [(&certificate[..], 0), (&[], 2)] {
        let all: Vec<_> =
            overrides.iter().copied().chain(["pf-elastic-collector.ssl.enabled=true"]).collect();
        let settings = collector(&sample("pf-elastic-collector.yml"), &all);
        match resolve::<CollectorSection>(&settings) {
            Ok(section) => assert!(missing == 0 && section.tls.enabled),
            Err(problems) => assert_eq!(problems.0.len(), missing, "{problems}"),
        }
    }
}
