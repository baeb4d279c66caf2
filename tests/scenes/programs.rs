//! Programs of known call chains and shares, compiled once per test run.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A program to profile: what it is called and which frames its chains have, outermost first.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// The chain that ends in the leaf through alpha.
    pub(crate) alpha: &'static [&'static str],
    /// The chain that ends in the leaf through delta.
    pub(crate) delta: &'static [&'static str],
    /// Frames that a complete stack may start with.
    pub(crate) entries: &'static [&'static str],
    build: fn(&Path, &Path) -> Command,
    source: &'static str,
}

/// C: `-O2 -fomit-frame-pointer`.
pub(crate) const C: Program = Program {
    name: "chain-c",
    alpha: &["worker", "run", "alpha", "beta", "gamma_step", "leaf_spin"],
    delta: &["worker", "run", "delta", "leaf_spin"],
    entries: &["clone", "clone3", "__clone", "__clone3", "_start", "start_thread"],
    build: |source, target| {
        let mut command = Command::new("cc");
        command.args(["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"]);
        command.arg(source).arg("-o").arg(target);
        command
    },
    source: "chain.c",
};

/// Rust: release build without frame pointers.
pub(crate) const RUST: Program = Program {
    name: "chain-rust",
    alpha: &["chain::run", "chain::alpha", "chain::beta", "chain::gamma_step", "chain::leaf_spin"],
    delta: &["chain::run", "chain::delta", "chain::leaf_spin"],
    entries: &["clone", "clone3", "__clone", "__clone3", "_start", "start_thread"],
    build: |source, target| {
        let mut command = Command::new("rustc");
        command.args(["-O", "-C", "force-frame-pointers=no", "--crate-name", "chain"]);
        command.arg(source).arg("-o").arg(target);
        command
    },
    source: "chain.rs",
};

/// Go.
pub(crate) const GO: Program = Program {
    name: "chain-go",
    alpha: &["main.run", "main.alpha", "main.beta", "main.gammaStep", "main.leafSpin"],
    delta: &["main.run", "main.delta", "main.leafSpin"],
    entries: &[
        "runtime.goexit",
        "runtime.goexit.abi0",
        "runtime.mstart",
        "runtime.mcall",
        "runtime.rt0_go",
        "_rt0_amd64_linux",
    ],
    build: |source, target| {
        let mut command = Command::new("go");
        command.args(["build", "-o"]).arg(target).arg(source).env("CGO_ENABLED", "0");
        command
    },
    source: "chain.go",
};

/// What the program measured about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truth {
    /// Share of CPU time below alpha, 0 to 1; the rest is below delta.
    pub(crate) alpha: f64,
    /// Process number it had.
    pub(crate) pid: u32,
    /// CPU time of both.
    pub(crate) cpu_seconds: f64,
}

impl Program {
    /// Path of the compiled program.
    pub(crate) fn path(&self) -> PathBuf {
        static FOLDER: OnceLock<PathBuf> = OnceLock::new();
        let folder = FOLDER.get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
            std::fs::create_dir_all(&folder).expect("a folder for programs");
            folder
        });
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(self.source);
        let target = folder.join(self.name);
        let fresh = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        if fresh(&target) < fresh(&source) {
            let output =
                (self.build)(&source, &target).output().unwrap_or_else(|e| panic!("{}: {e}", self.name));
            assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        target
    }

    /// Starts the program.
    pub(crate) fn start(&self, seconds: u32, threads: u32) -> Running {
        let child = Command::new(self.path())
            .args([seconds.to_string(), threads.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", self.name));
        Running(child)
    }
}

/// A running program.
pub(crate) struct Running(Child);

impl Running {
    /// Waits for the end and takes what it measured.
    pub(crate) fn truth(self) -> Truth {
        let pid = self.0.id();
        let output = self.0.wait_with_output().expect("the program ends");
        let text = String::from_utf8_lossy(&output.stdout);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let number = |key: &str| json[key].as_f64().unwrap_or_else(|| panic!("{key} in {text}"));
        Truth { alpha: number("alpha"), pid, cpu_seconds: number("cpu_seconds") }
    }
}
