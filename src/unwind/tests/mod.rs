//! Real files and hostile ones against independent oracles.

mod live;
mod oracle;
mod sampled;
mod walk;

use std::path::{Path, PathBuf};

/// Files of every kind that an ordinary machine may have; those missing are left out.
fn real_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/lib/x86_64-linux-gnu/libcrypto.so.3",
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/bin/python3",
        "/usr/bin/gdb",
        "/usr/lib/chromium/chromium",
        "/usr/lib/llvm-14/lib/libLLVM-14.so.1",
        "/bin/bash",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    files.extend(std::env::current_exe().ok());
    files.extend(rustc_driver());
    files.retain(|path| path.exists());
    files
}

fn rustc_driver() -> Option<PathBuf> {
    let sysroot = std::process::Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let library = Path::new(String::from_utf8(sysroot.stdout).ok()?.trim()).join("lib");
    let is_driver = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("librustc_driver"))
    };
    std::fs::read_dir(library).ok()?.flatten().map(|entry| entry.path()).find(is_driver)
}
