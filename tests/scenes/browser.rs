//! The page in a real browser.

use std::path::Path;
use std::process::Command;

use crate::programs::Program;
use crate::scene::Scene;

/// Searches the program's leaf in the flame graph, zooms to it, and compares the share shown with the API's.
pub(crate) fn drive(scene: &Scene, program: &Program) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join("node_modules/playwright-core").exists() || !Path::new("/usr/bin/chromium").exists() {
        crate::cannot_run::cannot_run(
            "the page",
            "needs Chromium and playwright-core (make setup-test, npm ci)",
        );
        return;
    }
    let leaf = program.alpha.last().expect("a chain ends somewhere");
    let filter = format!("process: \"{}\"", program.name);
    let mut command = Command::new("node");
    command.arg(root.join("tests/scenes/browser.mjs")).args([&scene.web, &filter, *leaf]);
    if let Some(file) = std::env::var_os("EVERFLAME_SCREENSHOT") {
        command.arg(file);
    }
    let output = command.output().expect("node runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "browser: {err}\n{out}\n{}", scene.log());
    println!("browser: {}", out.trim());
    let seen: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    assert_eq!(seen["mistakes"], serde_json::json!([]), "the page logged errors");
    let text = seen["share"].as_str().expect("text");
    let share: f64 = text
        .split('%')
        .next()
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or_else(|| panic!("a share in {text:?}"));
    // Nearly everything this program does ends in its leaf.
    assert!(share > 95.0, "{leaf} has {share} % in the page: {text}");
}
