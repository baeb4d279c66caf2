//! Names of real files against the tools of the trade: `nm`, `llvm-symbolizer`.
//!
//! A test without its tool or its file says so and ends; what it needs stands at its top.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "this file is a test throughout"
)]

mod cannot_run;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use cannot_run::cannot_run;
use everflame::model::{ElfAddr, SourceLine};
use everflame::symbols::demangle::demangle;
use everflame::symbols::resolve::Source;
use everflame::symbols::{SymbolIndex, elf::Elf, file_id, mapped::ImageFile};

fn index(path: &Path) -> SymbolIndex {
    let elf = Elf::open(ImageFile::open(File::open(path).unwrap()).unwrap()).unwrap();
    SymbolIndex::build(&elf, None).unwrap()
}

/// Standard output of a program that may be missing here.
fn output(program: &str, arguments: &[&str], input: &str) -> Option<String> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // A program that ends early leaves input unread.
    let _ = writer.join().unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Functions with a size as `nm` lists them: start, size, name without version.
fn nm(path: &Path, dynamic: bool) -> Option<Vec<(u64, u64, String)>> {
    let mut arguments = vec!["-S", "--defined-only", path.to_str().unwrap()];
    if dynamic {
        arguments.insert(0, "-D");
    }
    let listing = output("nm", &arguments, "")?;
    let functions = listing.lines().filter_map(|line| {
        let mut fields = line.splitn(4, ' ');
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, size) = (number(fields.next()?)?, number(fields.next()?)?);
        let kind = fields.next()?;
        let name = fields.next()?.split('@').next()?.to_owned();
        ("TtWwi".contains(kind) && kind.len() == 1 && size > 0 && start > 1).then_some((start, size, name))
    });
    Some(functions.collect())
}

/// First, middle and last byte of every function carry one of the names that cover them.
fn check_against_nm(test: &str, path: &Path, dynamic: bool, at_least: usize) {
    let Some(mut functions) = nm(path, dynamic) else { return cannot_run(test, "no nm") };
    functions.sort();
    assert!(functions.len() >= at_least, "{} functions", functions.len());
    let index = index(path);
    assert_eq!(index.faults(), [""; 0]);
    let mut wrong = Vec::new();
    // The longest function bounds how far back a covering one can start.
    let longest = functions.iter().map(|(_, size, _)| *size).max().unwrap();
    for (start, size, _) in &functions {
        for address in [*start, start + size / 2, start + size - 1] {
            let found = index.lookup(ElfAddr(address)).map(|lines| lines[0].function.to_string());
            let behind = functions.partition_point(|(start, _, _)| *start <= address);
            let covering = functions[..behind]
                .iter()
                .rev()
                .take_while(|(start, _, _)| address - start < longest)
                .filter(|(start, size, _)| address < start + size);
            let names: Vec<String> = covering.map(|(_, _, name)| demangle(name.as_bytes())).collect();
            if !found.as_ref().is_ok_and(|found| names.contains(found)) {
                wrong.push(format!("{address:#x}: {found:?}, nm says {names:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}: {:#?}",
        wrong.len(),
        functions.len() * 3,
        &wrong[..wrong.len().min(10)]
    );
}

/// Where a library of this process lies.
fn mapped(name: &str) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
    path.filter(|path| path.contains(name)).map(str::to_owned).next()
}

#[test]
fn libc_is_named_like_nm_names_it() {
    let Some(path) = mapped("libc.so") else { return cannot_run("libc", "this test is linked statically") };
    check_against_nm("libc", Path::new(&path), true, 1000);
}

#[test]
fn libstdcxx_is_named_like_nm_names_it() {
    let path = Path::new("/usr/lib/x86_64-linux-gnu/libstdc++.so.6");
    if !path.exists() {
        return cannot_run("libstdc++", "not installed");
    }
    check_against_nm("libstdc++", path, true, 1000);
}

#[test]
fn a_rust_program_is_named_like_nm_names_it() {
    check_against_nm("this program", &std::env::current_exe().unwrap(), false, 1000);
}

#[test]
fn chromium_has_dynamic_symbols_only_and_the_rest_says_so() {
    let path = Path::new("/usr/lib/chromium/chromium");
    if !path.exists() {
        return cannot_run("chromium", "not installed");
    }
    check_against_nm("chromium", path, true, 10);
    let index = index(path);
    assert!(index.sources().contains(&Source::DynamicSymbols));
    assert!(!index.sources().contains(&Source::SymbolTable));
    assert!(index.bytes() < 1 << 20, "{} bytes", index.bytes());
}

#[test]
fn file_id_equals_what_sha256sum_makes_of_the_rule() {
    let path = std::env::current_exe().unwrap();
    let rule = r#"{ head -c 4096 "$1"; tail -c 4096 "$1"; printf %016x "$(stat -c %s "$1")" | xxd -r -p; } | sha256sum"#;
    let sum = output("sh", &["-ec", rule, "sh", path.to_str().unwrap()], "");
    let Some(sum) = sum.filter(|_| output("sh", &["-c", "command -v xxd"], "").is_some()) else {
        return cannot_run("file ID", "no sha256sum or no xxd");
    };
    let image = ImageFile::open(File::open(&path).unwrap()).unwrap();
    assert_eq!(file_id::of_file(&image).unwrap().to_string(), sum[..32]);
}

/// The program of known call chains, with and without its debug information; both have the same code.
fn go_programs(folder: &Path, mode: &str) -> Option<(std::path::PathBuf, std::path::PathBuf)> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/chain.go");
    let go = if Path::new("/usr/local/go/bin/go").exists() { "/usr/local/go/bin/go" } else { "go" };
    let build = |name: &str, linker: &str| {
        let out = folder.join(name);
        let mode = format!("-buildmode={mode}");
        output(go, &["build", &mode, "-ldflags", linker, "-o", out.to_str()?, source], "").map(|_| out)
    };
    Some((build("full", "")?, build("stripped", "-s -w")?))
}

/// Chains by `llvm-symbolizer`, outermost first: function, then place as `file:line`.
fn symbolizer(path: &Path, addresses: &[u64]) -> Option<BTreeMap<u64, Vec<(String, String)>>> {
    let input: Vec<String> = addresses.iter().map(|address| format!("{address:#x}")).collect();
    let arguments = ["--inlines", "--no-demangle", "-e", path.to_str()?];
    let answer = output("llvm-symbolizer", &arguments, &input.join("\n"))?;
    let chains = answer.trim_end().split("\n\n").map(|chain| {
        let lines: Vec<&str> = chain.lines().collect();
        let pairs = lines.chunks_exact(2).rev();
        pairs
            .map(|pair| {
                let place = pair[1].rsplit_once(':').unwrap_or_default().0;
                // The linker's spelling of assembly functions, and of files that do not exist.
                let name = pair[0].trim_end_matches(".abi0");
                (name.to_owned(), place.trim_start_matches("./").to_owned())
            })
            .collect()
    });
    Some(addresses.iter().copied().zip(chains).collect())
}

fn check_go(mode: &str) {
    let folder = tempfile::tempdir().unwrap();
    let Some((full, stripped)) = go_programs(folder.path(), mode) else {
        return cannot_run("Go tables", "no go");
    };
    let elf = Elf::open(ImageFile::open(File::open(&stripped).unwrap()).unwrap()).unwrap();
    assert!(file_id::build_ids(&elf).unwrap().go.is_some());
    let text = *elf.sections().unwrap().by_name(".text").unwrap();
    let addresses: Vec<u64> = (text.address.0..text.end().0).step_by(29).collect();
    let Some(expected) = symbolizer(&full, &addresses) else {
        return cannot_run("Go tables", "no llvm-symbolizer");
    };

    let index = index(&stripped);
    assert_eq!(index.sources()[0], Source::GoTable);
    let (mut asked, mut same_chain, mut same_all, mut inlined) = (0, 0, 0, 0);
    for (address, chain) in &expected {
        if chain[0].0 == "??" {
            continue;
        }
        let lines = index.lookup(ElfAddr(*address)).unwrap_or_default();
        let functions: Vec<&str> = lines.iter().map(|line| &*line.function).collect();
        let place = |line: &SourceLine| format!("{}:{}", line.file, line.line);
        asked += 1;
        inlined += usize::from(chain.len() > 1);
        same_chain +=
            usize::from(functions == chain.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
        same_all += usize::from(
            lines.iter().map(|line| (line.function.to_string(), place(line))).eq(chain.iter().cloned()),
        );
    }
    println!(
        "{mode}: {asked} addresses, {inlined} inlined, {same_chain} same chain, {same_all} same lines too"
    );
    assert!(asked > 10_000 && inlined > 1000);
    // Names with a middle dot are spelled differently by the debug information; lines of generated code are missing
    // in it.
    assert!(same_chain as f64 >= asked as f64 * 0.999);
    assert!(same_all as f64 >= asked as f64 * 0.995);
}

#[test]
fn a_stripped_go_program_is_named_like_its_debug_information_names_it() {
    check_go("exe");
}

#[test]
fn a_stripped_position_independent_go_program_too() {
    check_go("pie");
}

/// `.gnu_debugdata` as distributions make it: the symbol table without what `.dynsym` has, in xz.
#[test]
fn mini_debug_info_names_what_strip_took_away() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let source = "static __attribute__((noinline)) int hidden(int x) { return x * 3; } \
                  int main(int c, char **v) { (void)v; return hidden(c); }";
    let make = r#"cd "$1"; cat > p.c; cc -O1 -o full p.c; cp full program; strip program
                  objcopy -S --remove-section=.comment --keep-symbol=hidden full mini 2>/dev/null || true
                  objcopy --only-keep-debug full mini; xz -f mini
                  objcopy --add-section .gnu_debugdata=mini.xz program"#;
    if output("sh", &["-ec", make, "sh", folder.path().to_str().unwrap()], source).is_none() {
        return cannot_run("MiniDebugInfo", "no cc, objcopy or xz");
    }
    let Some(functions) = nm(&folder.path().join("full"), false) else {
        return cannot_run("MiniDebugInfo", "no nm");
    };
    let hidden = functions.iter().find(|(_, _, name)| name.starts_with("hidden")).unwrap();
    let index = index(&program);
    assert_eq!(index.faults(), [""; 0]);
    assert!(
        index.sources().contains(&Source::MiniDebugInfo) && !index.sources().contains(&Source::SymbolTable)
    );
    assert_eq!(&*index.lookup(ElfAddr(hidden.0 + 1)).unwrap()[0].function, "hidden");
}
