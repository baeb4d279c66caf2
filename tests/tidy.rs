//! House rules as a test: arrows between rooms, homes of foreign dialects, file sizes, headers, where unsafe may be.
//!
//! The rules are those of `docs/architecture.md`; change them there first.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Room, and the rooms it may import.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("cli", &["run", "config"]),
    ("run", &["*"]),
    ("config", &["model"]),
    ("model", &[]),
    ("symbols", &["model"]),
    ("unwind", &["model"]),
    ("wire", &["model"]),
    ("net", &["config", "telemetry"]),
    ("telemetry", &["model"]),
    ("agent", &["model", "symbols", "unwind", "wire", "net", "config", "telemetry"]),
    ("collector", &["model", "wire", "store", "net", "config", "telemetry"]),
    ("symbolizer", &["model", "symbols", "wire", "store", "net", "config", "telemetry"]),
    ("store", &["model", "net", "config", "telemetry"]),
    ("query", &["model", "store"]),
    ("web", &["model", "query", "store", "net", "config", "telemetry"]),
];

/// Crate, and the only places that may name it.
const HOMES: &[(&str, &[&str])] = &[
    ("libbpf_rs", &["agent/bpf/", "agent/tables/", "agent/capabilities"]),
    ("reqwest", &["store/elastic/"]),
    ("rustls", &["net/"]),
    ("tokio_rustls", &["net/"]),
    ("metrics_exporter_prometheus", &["telemetry/"]),
    ("redb", &["store/embedded/"]),
    ("parquet", &["store/embedded/"]),
    ("figment", &["config/"]),
    ("clap", &["cli/"]),
    ("tonic", &["wire/", "collector/otlp"]),
    ("axum", &["web/", "collector/", "net/", "wire/otlp/"]),
    ("gimli", &["unwind/", "symbols/"]),
    ("include_dir", &["web/"]),
];

/// Places that may open `unsafe`.
const UNSAFE: &[&str] = &["agent/bpf/", "agent/process/remote_memory", "agent/host/", "symbols/mapped"];

/// Lines of a file before its tests.
const MOST_LINES: usize = 800;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder of the project").map(|e| e.expect("an entry").path()) {
        if entry.is_dir() {
            files(&entry, extension, found);
        } else if entry.extension().is_some_and(|e| e == extension) {
            found.push(entry);
        }
    }
}

/// Path below `src` and text of every source file.
fn sources() -> BTreeMap<String, String> {
    let src = root().join("src");
    let mut found = Vec::new();
    files(&src, "rs", &mut found);
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&src).expect("below src").display().to_string();
            (name, fs::read_to_string(&path).expect("a source file"))
        })
        .collect()
}

fn room(path: &str) -> &str {
    path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// Code without comments, up to the tests.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn fail_if_any(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Rooms that a text names as `crate::room` or inside `use crate::{…}`.
fn imports(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => rooms.push(std::mem::take(&mut name)),
                    c if depth == 0 && !c.is_whitespace() => name.push(c),
                    _ => {}
                }
            }
            rooms.push(name);
        } else {
            rooms.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    rooms.into_iter().map(|name| name.split("::").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn arrows_point_down() {
    let rooms: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let here = room(&path);
        if here == "lib" {
            continue;
        }
        let Some(allowed) = rooms.get(here) else {
            broken.push(format!("src/{path}: the room {here} is not in docs/architecture.md"));
            continue;
        };
        for there in imports(&code(&text)) {
            let is_room = rooms.contains_key(there.as_str());
            if is_room && there != here && !allowed.contains(&"*") && !allowed.contains(&there.as_str()) {
                broken.push(format!("src/{path}: {here} must not import {there}"));
            }
        }
    }
    fail_if_any("arrows point down (docs/architecture.md)", &broken);
}

#[test]
fn foreign_dialects_stay_at_home() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let code = code(&text);
        for (dialect, homes) in HOMES {
            let named = code.contains(&format!("use {dialect}::")) || code.contains(&format!(" {dialect}::"));
            if named && !homes.iter().any(|home| path.starts_with(home)) {
                broken.push(format!("src/{path}: {dialect} lives in {}", homes.join(", ")));
            }
        }
    }
    fail_if_any("each foreign dialect has one home", &broken);
}

#[test]
fn unsafe_is_opened_at_four_addresses_only() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let code = code(&text);
        let opened = code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn");
        if opened && !UNSAFE.iter().any(|address| path.starts_with(address)) {
            broken.push(format!("src/{path}"));
        }
    }
    fail_if_any("unsafe only at its addresses", &broken);
}

#[test]
fn files_say_what_they_are_and_stay_small() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//!") {
            broken.push(format!("src/{path}: starts without a //! header"));
        }
        let lines = text.find("#[cfg(test)]\nmod ").map_or(text.as_str(), |end| &text[..end]).lines().count();
        if lines > MOST_LINES {
            broken.push(format!("src/{path}: {lines} lines before its tests, at most {MOST_LINES}"));
        }
    }
    fail_if_any("files explain themselves and stay small", &broken);
}

#[test]
fn names_say_something() {
    let mut broken = Vec::new();
    for path in sources().keys() {
        for word in ["util", "utils", "helper", "helpers", "common", "manager", "misc"] {
            if path.split(['/', '.']).any(|part| part == word) {
                broken.push(format!("src/{path}: {word}"));
            }
        }
    }
    fail_if_any("no file is called after nothing", &broken);
}

#[test]
fn kernel_side_c_carries_its_licence() {
    let mut found = Vec::new();
    files(&root().join("bpf"), "c", &mut found);
    files(&root().join("bpf"), "h", &mut found);
    let broken: Vec<String> = found
        .iter()
        .filter(|path| {
            !fs::read_to_string(path).expect("a source file").contains("SPDX-License-Identifier: GPL-2.0")
        })
        .map(|path| path.display().to_string())
        .collect();
    fail_if_any("files under bpf/ are GPL-2.0", &broken);
}
