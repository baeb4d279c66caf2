//! What is forbidden is named in one sentence with its cure. `tests/kernels/matrix` forbids in guests what cannot be forbidden
//! here: lockdown, the compiler of BPF programs, the kernel's own type information.

use std::process::Command;

use everflame::agent::bpf::{Features, Object, Sampler, SamplerSettings};

use super::scene::{cannot_run, refuser, turn};

#[test]
fn refusal_names_its_reason() {
    let Some(_turn) = turn() else { return };
    let features = Features::probe();
    let missing = features.missing();
    for missing in &missing {
        println!("said: {missing}");
    }
    let loaded = Sampler::load(&SamplerSettings::default());
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap();
    if command_line.contains("lockdown=confidentiality") {
        assert!(missing[0].what.contains("locked down"), "{features:?}");
    }
    if command_line.contains("everflame_hide=types") {
        assert!(missing[0].what.contains("type information"), "{features:?}");
    }
    if command_line.contains("bpf_jit_enable:0") {
        assert!(missing.iter().any(|missing| missing.what.contains("interpreted")), "{features:?}");
        assert_eq!(loaded.as_ref().unwrap().object(), Object::Legacy);
    }
    match missing.into_iter().find(|missing| missing.fatal) {
        Some(fatal) => {
            let error = loaded.unwrap_err();
            assert!(error.to_string().starts_with(&fatal.to_string()), "{error}");
            assert_eq!(error.hint(), Some(fatal.cure));
        }
        None => drop(loaded.unwrap()),
    }
}

#[test]
fn seccomp_filter_is_named_in_a_refusal() {
    let Some(_turn) = turn() else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(refuser) = refuser(directory.path()) else {
        cannot_run("a seccomp filter", "no C compiler (cc) found");
        return;
    };
    let mut test = Command::new(refuser);
    test.arg(std::env::current_exe().unwrap()).args([
        "--exact",
        "refusal::refusal_names_its_reason",
        "--nocapture",
    ]);
    let output = test.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("said: a seccomp filter"), "{said}");
}
