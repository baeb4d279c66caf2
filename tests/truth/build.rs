//! Programs of the matrix from their sources, below `target/truth`; built again only when source or flags change.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::row::{Build, Row};

type Built = Result<PathBuf, String>;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

/// Folder of everything that is built and fetched; outlives a run.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/truth");
    std::fs::create_dir_all(folder.join("programs")).expect("a folder below target");
    folder
}

/// The executable of a row; why there is none otherwise.
pub(crate) fn program(row: &Row) -> Built {
    match &row.build {
        Build::Compiled { compiler, source: name, flags } => {
            finish(row, &[source(name)], |target| vec![compile(compiler, name, flags, &[], target)])
        }
        Build::Trained { compiler, source: name, flags } => trained(row, compiler, name, flags),
        Build::Rust { source: name, flags } => finish(row, &[source(name)], |target| {
            let mut command = Command::new("rustc");
            command.args(["--edition", "2024", "--crate-name", name.trim_end_matches(".rs")]).args(flags);
            command.arg(source(name)).arg("-o").arg(target);
            vec![command]
        }),
        Build::Go { from, source: name, cgo } => go(row, *from, name, *cgo),
        Build::Installed(paths) => {
            let found = paths.iter().find_map(|path| first_match(path));
            found.ok_or_else(|| format!("not installed: {}", paths.join(", ")))
        }
    }
}

fn compile(compiler: &str, name: &str, flags: &[&str], more: &[String], target: &Path) -> Command {
    let mut command = Command::new(compiler);
    command.args(flags).args(more).arg("-o").arg(target).arg(source(name));
    command
}

/// Runs the commands that make `target` unless it is newer than its sources and made by the same commands.
fn finish(row: &Row, sources: &[PathBuf], commands: impl FnOnce(&Path) -> Vec<Command>) -> Built {
    let target = folder().join("programs").join(&*row.name);
    let commands = commands(&target);
    let recipe = format!("{commands:?}");
    let recipe_path = target.with_file_name(format!("{}.recipe", row.name));
    let made = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    let fresh = sources.iter().all(|source| made(&target) > made(source));
    if fresh && std::fs::read_to_string(&recipe_path).is_ok_and(|found| found == recipe) {
        return Ok(target);
    }
    for mut command in commands {
        run(&mut command)?;
    }
    std::fs::write(recipe_path, recipe).map_err(|error| error.to_string())?;
    Ok(target)
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}: {}", output.status, text.lines().take(6).collect::<Vec<_>>().join(" / ")))
}

/// Compiles to learn, runs for two seconds, compiles with what was learned. gcc names what it learned after the output,
/// so that has the same name both times.
fn trained(row: &Row, compiler: &str, name: &str, flags: &[&str]) -> Built {
    finish(row, &[source(name)], |target| {
        let learned = folder().join(format!("{}.profile", row.name));
        let generate = format!("-fprofile-generate={}", learned.display());
        let mut clean = Command::new("rm");
        clean.arg("-rf").arg(&learned);
        let mut training = Command::new(target);
        training.args(["2", "train"]);
        let mut commands = vec![clean, compile(compiler, name, flags, &[generate], target), training];
        let mut used = learned.clone();
        if compiler.starts_with("clang") {
            used = learned.join("all.profdata");
            let mut merge = Command::new("sh");
            merge
                .args(["-c", "llvm-profdata merge -o \"$1\" \"$2\"/*.profraw", "sh"])
                .arg(&used)
                .arg(&learned);
            commands.push(merge);
        }
        let using = [format!("-fprofile-use={}", used.display())];
        commands.push(compile(compiler, name, flags, &using, target));
        commands
    })
}

/// Go of another suite, unpacked into a folder of its own, or the one on the path.
fn go(row: &Row, from: Option<(&str, &str)>, name: &str, cgo: bool) -> Built {
    let mut tool = PathBuf::from("go");
    let mut root = None;
    if let Some((suite, version)) = from {
        let unpacked = folder().join(format!("go-{version}"));
        let mut fetch = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/fetch-packages"));
        fetch.arg(&unpacked).args([suite, &format!("golang-{version}-go"), &format!("golang-{version}-src")]);
        run(&mut fetch)?;
        let home = unpacked.join(format!("usr/lib/go-{version}"));
        tool = home.join("bin/go");
        root = Some(home);
    }
    finish(row, &[source(name)], |target| {
        let mut command = Command::new(tool);
        // Settings of this machine's own Go must not reach an older one.
        command.env("GOENV", "off").env("GOTOOLCHAIN", "local").env_remove("GOFLAGS").env_remove("GOROOT");
        command.env("GOCACHE", folder().join("go-cache")).env("CGO_ENABLED", if cgo { "1" } else { "0" });
        command.envs(root.iter().map(|root| ("GOROOT", root)));
        command.args(["build", "-o"]).arg(target).arg(source(name));
        vec![command]
    })
}

/// A path in which `*` may stand for one component: the last that exists.
fn first_match(pattern: &str) -> Option<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return Path::new(pattern).exists().then(|| PathBuf::from(pattern));
    };
    let mut found: Vec<PathBuf> = std::fs::read_dir(before)
        .ok()?
        .flatten()
        .map(|entry| PathBuf::from(format!("{}{after}", entry.path().display())))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop()
}
