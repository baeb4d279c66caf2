//! `tracers`: which interpreters are looked into. Names are checked; none of them is built yet.

use super::super::Settings;

/// Names that mean something to the reference agent.
const KNOWN: [&str; 11] =
    ["perl", "php", "python", "hotspot", "ruby", "v8", "dotnet", "go", "labels", "beam", "luajit"];

/// Reads and checks the list. Native code is always sampled.
pub(super) fn read(settings: &Settings, key: &str) -> Vec<String> {
    let names = settings.list(key, &["all"]);
    for name in &names {
        let message = match name.as_str() {
            "all" => continue,
            "native" => "native has no effect: native code is always sampled",
            known if KNOWN.contains(&known) => "has no effect yet: interpreters are shown as native code",
            unknown => {
                let message = format!("unknown tracer: {unknown}");
                let hint = format!("known are all, native, {}", KNOWN.join(", "));
                settings.problem(key, message, Some(hint));
                continue;
            }
        };
        settings.warn(key, message, None);
    }
    names
}
