//! The binary as each role: program name, options, exit codes, texts.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::scene::{program, run};

#[test]
fn help_and_version_of_every_role_are_a_success() {
    for role in ["all-in-one", "agent", "collector", "web", "symbolizer", "symbtool", "otelcol", "setup"] {
        let (code, out, err) = run(&[role, "--help"], &[]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{role}");
        assert!(out.contains("Usage:"), "{role}: {out}");
        let (code, out, _) = run(&[role, "--version"], &[]);
        assert_eq!(code, Some(0), "{role}: {out}");
        assert!(out.contains(env!("CARGO_PKG_VERSION")), "{role}: {out}");
    }
}

#[test]
fn roles_of_later_versions_say_so_with_exit_code_2() {
    for role in ["symbolizer", "symbtool", "otelcol"] {
        let (code, _, err) = run(&[role], &[]);
        assert_eq!(code, Some(2), "{role}: {err}");
        assert!(err.contains("not built yet") && err.contains("hint:"), "{role}: {err}");
    }
}

#[test]
fn the_program_name_selects_the_role() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in
        [("pf-elastic-collector", "Take OTLP profiles"), ("pf-host-agent", "Sample this host")]
    {
        let link = folder.path().join(name);
        symlink(program(), &link).expect("a link");
        let output = Command::new(&link).arg("--help").output().expect("it runs");
        assert!(String::from_utf8_lossy(&output.stdout).contains(text), "{name}");
    }
}

#[test]
fn sample_files_pass_the_check_unchanged() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/");
    for (role, file) in [
        ("collector", "pf-elastic-collector.yml"),
        ("symbolizer", "pf-elastic-symbolizer.yml"),
        ("all-in-one", "everflame.yml"),
    ] {
        let (code, out, err) = run(&[role, "-c", &format!("{examples}{file}"), "--check"], &[]);
        assert_eq!(code, Some(0), "{file}: {err}");
        assert!(out.contains(".host: "), "{file}: {out}");
    }
    let (code, _, err) = run(&["agent", "-config", &format!("{examples}pf-host-agent.conf"), "--check"], &[]);
    assert_eq!(code, Some(0), "{err}");
}

#[test]
fn mistakes_are_told_together_with_exit_code_2() {
    let (code, _, err) =
        run(&["all-in-one", "--web", "8250", "--retention", "soon", "-E", "stor.data_dir=x", "--check"], &[]);
    assert_eq!(code, Some(2), "{err}");
    for part in [
        "--web: web.host: expected host:port",
        "hint: write 0.0.0.0:8250",
        "store.retention",
        "stor.data_dir: unknown key",
        "did you mean store.data_dir?",
    ] {
        assert!(err.contains(part), "{part} in {err}");
    }
    assert_eq!(run(&["all-in-one", "--nonsense"], &[]).0, Some(2));
    assert_eq!(run(&["collector", "-c", "/nonexistent.yml"], &[]).0, Some(2));
}

#[test]
fn agent_options_are_those_of_the_reference_agent() {
    let (code, out, err) = run(
        &[
            "agent",
            "-config",
            "/dev/null",
            "-project-id=73",
            "-disable-tls=false",
            "-pin-cpu-ids",
            "0-1",
            "-t",
            "all",
            "--check",
        ],
        &[("OTEL_PROFILING_AGENT_TAGS", "a;b"), ("PRODFILER_SAMPLES_PER_SECOND", "97")],
    );
    assert_eq!(code, Some(0), "{err}");
    for part in [
        "project-id: 73",
        "tags: \"a;b\"",
        "samples-per-second: 97",
        "pin-cpu-ids: 0,1",
        "disable-tls: false",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let told = |arguments: &[&str]| {
        let (code, _, err) = run(&[&["agent", "-config", "/dev/null", "--check"], arguments].concat(), &[]);
        assert_eq!(code, Some(2), "{arguments:?}: {err}");
        err
    };
    assert!(told(&["-project-id", "4096"]).contains("invalid project id 4096 (need > 0 and < 4096)"));
    assert!(told(&["-off-cpu-threshold=0.01"]).contains("sampling of waiting threads is not built yet"));
    assert!(told(&["-tracers", "cobol"]).contains("unknown tracer: cobol"));
    assert!(told(&["-probabilistic-interval", "6m"]).contains("a duration from 1m to 5m"));
}
