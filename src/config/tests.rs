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
fn keys_without_effect_are_told_and_defaults_are_not() {
    let yaml = "pf-elastic-collector:\n  metrics.prometheus_host: localhost:9090\n  memory_limit: 500M\n";
    let settings = collector(yaml, &[]);
    resolve::<CollectorSection>(&settings).expect("valid");
    let told: Vec<String> = settings.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "collector.yml: pf-elastic-collector.metrics.prometheus_host: has no effect yet",
            "collector.yml: pf-elastic-collector.memory_limit: has no effect yet"
        ]
    );
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
            .variables(AgentSection::VARIABLES, AgentSection::NAME)
            .flag("-project-id", "pf-host-agent.project-id", Some(75))
            .settings();
    let section = resolve::<AgentSection>(&settings).expect("valid");
    assert_eq!((section.project_id, section.verbose, section.disable_tls), (75, true, true));
    assert_eq!(section.tags, ["a:b", "c"]);
    let unknown = settings.unknown_keys(&[]);
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    insta::assert_snapshot!(settings);
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
