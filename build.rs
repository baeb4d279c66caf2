//! Compiles the BPF objects and turns `bpf/abi.h` into Rust constants, both into `OUT_DIR`; nothing else.

#[cfg(not(feature = "agent"))]
fn main() {}

#[cfg(feature = "agent")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=bpf");
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("abi.rs"), abi::to_rust(&std::fs::read_to_string("bpf/abi.h")?)?)?;
    for (object, defines) in [("modern", None), ("legacy", Some("-DEVERFLAME_LEGACY"))] {
        let flags = ["-mcpu=v3", "-Wall", "-Wextra", "-Werror"].into_iter().chain(defines);
        libbpf_cargo::SkeletonBuilder::new()
            .source("bpf/native.bpf.c")
            .obj(out.join(format!("{object}.bpf.o")))
            .clang_args(flags)
            .build()
            .map_err(|error| format!("bpf/native.bpf.c ({object} object): {error:#}"))?;
    }
    Ok(())
}

/// Reads the header both sides share: numbers and the two lists.
#[cfg(feature = "agent")]
mod abi {
    use std::fmt::Write;

    /// Rust text of every `#define ABI_NAME number`, of the end reasons and of the counters.
    pub(crate) fn to_rust(header: &str) -> Result<String, String> {
        let mut rust = String::from("// Made from bpf/abi.h by the build script.\n");
        for line in header.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("#define") {
                continue;
            }
            let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
            if let Some(name) = name.strip_prefix("ABI_")
                && value.starts_with(|c: char| c.is_ascii_digit())
            {
                writeln!(
                    rust,
                    "#[allow(dead_code, clippy::unreadable_literal)]\npub(crate) const {name}: u32 = {value};"
                )
                .map_err(|e| e.to_string())?;
            }
        }
        rust.push_str("/// Number of a reason as the kernel side sends it.\n");
        rust.push_str("pub(crate) const END_REASONS: &[(u16, crate::agent::bpf::EndReason)] = &[\n");
        for [_, number, variant] in list(header, "ABI_END_REASONS")? {
            writeln!(rust, "    ({number}, crate::agent::bpf::EndReason::{variant}),")
                .map_err(|e| e.to_string())?;
        }
        rust.push_str("];\n/// Class and name of each counter, in the order of the kernel side.\n");
        rust.push_str("pub(crate) const COUNTERS: &[(CounterClass, &str)] = &[\n");
        for [_, class, name] in list(header, "ABI_COUNTERS")? {
            let class = match class.as_str() {
                "whole" => "Whole",
                "part" => "Part",
                "detail" => "Detail",
                other => return Err(format!("bpf/abi.h: expected a counter class, found {other}")),
            };
            writeln!(rust, "    (CounterClass::{class}, {name}),").map_err(|e| e.to_string())?;
        }
        rust.push_str("];\n");
        Ok(rust)
    }

    /// Arguments of each `X(…)` of the macro `name`.
    fn list(header: &str, name: &str) -> Result<Vec<[String; 3]>, String> {
        let head = format!("#define {name}(X)");
        let mut rows = Vec::new();
        let mut lines = header.lines().skip_while(|line| !line.starts_with(&head)).skip(1);
        loop {
            let line = lines.next().unwrap_or("").trim();
            let Some(arguments) = line.strip_prefix("X(") else { break };
            let arguments = arguments.trim_end_matches('\\').trim().trim_end_matches(')');
            let parts: Vec<String> = arguments.split(',').map(|part| part.trim().to_owned()).collect();
            rows.push(
                parts.try_into().map_err(|_| format!("bpf/abi.h: {name}: expected 3 arguments: {line}"))?,
            );
            if !line.ends_with('\\') {
                break;
            }
        }
        if rows.is_empty() { Err(format!("bpf/abi.h: {name} not found")) } else { Ok(rows) }
    }
}
