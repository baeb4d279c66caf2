//! Names as people write them.
//!
//! Rust (legacy and v0) without hash; C++ without parameters, return type and template arguments, the form of Elastic's
//! symbolizer, so that functions named by either side group together. Suffixes that compilers add to pieces and copies
//! of a function (`.cold`, `.isra.0`, `.llvm.123`) and symbol versions (`@@GLIBC_2.14`) fall away.
//!
//! Mangled names are small programs: they refer back to parts of themselves and nest. Input, nesting, output and work
//! are bounded; a name beyond a bound is shown as it stands in the file.

use std::fmt::{self, Write};

use cpp_demangle::{DemangleNodeType, DemangleOptions, DemangleWrite, ParseOptions};

use super::ranges::MAX_NAME_BYTES;

/// Longest name that is given out, in bytes; longer ones are cut and end in `…`.
pub const MAX_OUTPUT_BYTES: usize = 4 << 10;
/// Bytes that a demangler may write, those of template arguments included which are thrown away: 64 KiB. Back
/// references double with each step, so 40 bytes of input could write for hours.
const MAX_WRITTEN_BYTES: usize = 64 << 10;
/// Nesting of a C++ name. Real code goes beyond the library's 96; 192 levels take about 400 KiB of stack, a fifth of
/// the smallest stack in the house (2 MiB).
const MAX_NESTING: u32 = 192;
/// What compilers append to the name of a function when they copy or split it.
const SUFFIXES: [&str; 9] =
    [".llvm.", ".cold", ".part.", ".isra.", ".constprop.", ".lto_priv.", ".clone.", ".localalias", ".warm"];
/// What stands behind the parameters of a C++ method.
const QUALIFIERS: [&str; 4] = [" const", " volatile", " &&", " &"];
/// Marks a stub of the procedure linkage table.
const STUB: &str = "@plt";

/// Name for people of a symbol as its file spells it. Never empty unless `raw` is.
#[must_use]
pub fn demangle(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let (text, stub) = text.strip_suffix(STUB).map_or((&*text, ""), |text| (text, STUB));
    let bare = without_suffixes(text);
    let mut name = rust(bare).or_else(|| cpp(bare)).unwrap_or_else(|| bare.to_owned());
    clean(&mut name);
    name.push_str(stub);
    name
}

/// Takes out what does not belong into a line of text, and cuts what is too long.
pub(super) fn clean(name: &mut String) {
    if name.chars().any(char::is_control) {
        name.retain(|c| !c.is_control());
    }
    if name.len() > MAX_OUTPUT_BYTES {
        let end = (0..=MAX_OUTPUT_BYTES - '…'.len_utf8()).rev().find(|at| name.is_char_boundary(*at));
        name.truncate(end.unwrap_or(0));
        name.push('…');
    }
}

fn without_suffixes(name: &str) -> &str {
    // A name of nothing but suffix stays as it is.
    let name = match name.find('@') {
        Some(at) if at > 0 => &name[..at],
        _ => name,
    };
    let cut = SUFFIXES.iter().filter_map(|suffix| name.find(suffix)).filter(|at| *at > 0).min();
    cut.map_or(name, |at| &name[..at])
}

fn rust(name: &str) -> Option<String> {
    let is_v0 = name.starts_with("_R");
    if !is_v0 && !is_legacy_rust(name) {
        return None;
    }
    let demangled = rustc_demangle::try_demangle(name).ok()?;
    let mut out = Bounded::default();
    // `#` leaves out the hash.
    write!(out, "{demangled:#}").ok()?;
    Some(out.text).filter(|text| !text.is_empty())
}

/// `_ZN`, some path, and at its end an element of `h` and 16 hex digits. Everything else in `_Z` is C++.
fn is_legacy_rust(name: &str) -> bool {
    let Some(path) = name.strip_prefix("_ZN").and_then(|path| path.strip_suffix('E')) else { return false };
    let Some(hash) = path.len().checked_sub(19).and_then(|at| path.get(at..)) else { return false };
    hash.strip_prefix("17h").is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn cpp(name: &str) -> Option<String> {
    if !name.starts_with("_Z") || name.len() > MAX_NAME_BYTES {
        return None;
    }
    if let Some((kind, target)) = thunk(name) {
        return cpp_function(&format!("_Z{target}")).map(|target| format!("{kind} to {target}"));
    }
    cpp_function(name)
}

/// Small function that moves `this` before it goes on to another one: its kind and the mangled target.
/// Told apart here, because the library describes it in a notation of its own.
fn thunk(name: &str) -> Option<(&'static str, &str)> {
    /// What follows a number that may be negative and its `_`.
    fn behind_number(text: &str) -> Option<&str> {
        let text = text.strip_prefix('n').unwrap_or(text);
        text.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('_')
    }
    if let Some(text) = name.strip_prefix("_ZTh") {
        return Some(("non-virtual thunk", behind_number(text)?));
    }
    let text = name.strip_prefix("_ZTv")?;
    Some(("virtual thunk", behind_number(behind_number(text)?)?))
}

fn cpp_function(name: &str) -> Option<String> {
    let parse = ParseOptions::default().recursion_limit(MAX_NESTING);
    let print = DemangleOptions::new().no_params().no_return_type().recursion_limit(MAX_NESTING);
    let symbol = cpp_demangle::Symbol::new_with_options(name, &parse).ok()?;
    let mut kept = WithoutArguments::default();
    symbol.structured_demangle(&mut kept, &print).ok()?;
    let mut text = kept.out.text;
    // Qualifiers of a method belong to its parameters.
    while let Some(bare) = QUALIFIERS.iter().find_map(|word| text.strip_suffix(word)) {
        text.truncate(bare.len());
    }
    Some(text).filter(|text| !text.is_empty())
}

/// Takes text up to the bound, then fails, which ends the demangler.
#[derive(Debug, Default)]
struct Bounded {
    text: String,
    /// Bytes offered so far, kept or not.
    written: usize,
}

impl Bounded {
    fn offer(&mut self, text: &str, keep: bool) -> fmt::Result {
        self.written += text.len();
        if self.written > MAX_WRITTEN_BYTES {
            return Err(fmt::Error);
        }
        if keep {
            self.text.push_str(text);
        }
        Ok(())
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.offer(text, true)
    }
}

/// Keeps everything but template arguments.
#[derive(Debug, Default)]
struct WithoutArguments {
    out: Bounded,
    /// Lists of template arguments that are open.
    open: usize,
    /// Per open node whether it is such a list.
    nodes: Vec<bool>,
    /// A list was closed and its `>` comes next.
    closing: bool,
}

impl DemangleWrite for WithoutArguments {
    fn push_demangle_node(&mut self, kind: DemangleNodeType) {
        let is_arguments = matches!(kind, DemangleNodeType::TemplateArgs);
        if is_arguments && self.open == 0 {
            // The `<` was written before; so was a space when the name ends in one itself (`operator<< <int>`).
            let text = &mut self.out.text;
            text.truncate(text.strip_suffix('<').map_or(text.len(), |text| text.trim_end().len()));
        }
        self.open += usize::from(is_arguments);
        self.nodes.push(is_arguments);
    }

    fn write_string(&mut self, text: &str) -> fmt::Result {
        let is_closing = std::mem::take(&mut self.closing) && text == ">";
        self.out.offer(text, self.open == 0 && !is_closing)
    }

    fn pop_demangle_node(&mut self) {
        if self.nodes.pop() == Some(true) {
            self.open = self.open.saturating_sub(1);
            self.closing = self.open == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn check(raw: &str, expected: &str) {
        assert_eq!(demangle(raw.as_bytes()), expected);
    }

    #[test]
    fn rust_names_lose_their_hash() {
        check("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad");
        check("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE.llvm.1234567", "core::fmt::Formatter::pad");
        check(
            "_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar17h0123456789abcdefE",
            "<Test + 'static as foo::Bar<Test>>::bar",
        );
        check("_RNvCskwGfYPst2Cb_3foo3bar", "foo::bar");
        check("_RNvNtNtCs1234_7mycrate3foo3bar3baz", "mycrate::foo::bar::baz");
    }

    #[test]
    fn cpp_names_lose_parameters_and_template_arguments() {
        check("_ZN5space3fooEibc", "space::foo");
        check("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector::push_back");
        check("_ZSt4sortIN9__gnu_cxx17__normal_iteratorIPiSt6vectorIiSaIiEEEEEvT_S7_", "std::sort");
        check("_ZStlsISt11char_traitsIcEERSt13basic_ostreamIcT_ES5_PKc", "std::operator<<");
        check("_ZN3FoossERKS_", "Foo::operator<=>");
        check("_ZN12_GLOBAL__N_13fooEv", "(anonymous namespace)::foo");
        check("_ZNK3FooIiEcvT_IdEEv", "Foo::operator double");
        check("_ZZ4mainENKUliE_clEi", "main::{lambda(int)#1}::operator()");
        check("_ZTV3Foo", "{vtable(Foo)}");
        check("_ZN3FooC2Ev", "Foo::Foo");
        check("_ZThn168_N4llvm3FooD0Ev", "non-virtual thunk to llvm::Foo::~Foo");
        check(
            "_ZTv0_n24_NSt13basic_ostreamIwSt11char_traitsIwEED0Ev",
            "virtual thunk to std::basic_ostream::~basic_ostream",
        );
    }

    #[test]
    fn suffixes_and_versions_fall_away_and_stubs_stay_stubs() {
        check("memcpy@@GLIBC_2.14", "memcpy");
        check("foo.constprop.0.isra.0", "foo");
        check("_ZN5space3fooEibc.cold", "space::foo");
        check("_ZN5space3fooEibc@plt", "space::foo@plt");
        check("malloc@plt", "malloc@plt");
        check(".cold", ".cold");
        check("main.(*T).Run", "main.(*T).Run");
    }

    #[test]
    fn what_is_no_name_is_shown_as_it_is() {
        check("_Znonsense", "_Znonsense");
        check("_R", "_R");
        check("_Z", "_Z");
        assert_eq!(demangle(b"a\xffb\x1b[31m\n"), "a\u{fffd}b[31m");
        let long = demangle(&[b'x'; MAX_NAME_BYTES]);
        assert!(long.len() <= MAX_OUTPUT_BYTES && long.ends_with('…'));
    }

    /// Each is at most 8 KiB of input that asks for much stack, time or memory.
    fn hostile() -> Vec<String> {
        let nested = |open: &str, count: usize| format!("_Z1f{}i", open.repeat(count));
        let mut doubling = "_Z1fI".to_owned();
        doubling.push_str("1AIiiE");
        for at in 0..60 {
            let reference = match at {
                0 => "S_".to_owned(),
                _ => format!("S{}_", std::char::from_digit(at - 1, 36).unwrap_or('z').to_ascii_uppercase()),
            };
            let _ = write!(doubling, "1AI{reference}{reference}E");
        }
        doubling.push('E');
        vec![
            nested("P", 8000),
            nested("A1_", 2600),
            nested("1AI", 2600),
            nested("DpT_", 2000),
            nested("FvPF", 2000),
            format!("_ZN{}E", "1a".repeat(4000)),
            format!("_Z1fIX{}Li1EEE", "ad".repeat(4000)),
            format!("_R{}", "NvC".repeat(2600)),
            format!("_RI{}", "TB_".repeat(2600)),
            format!("_RINvC1a1b{}E", "R".repeat(8000)),
            format!("_RNvXB_{}", "B_".repeat(4000)),
            format!("_Z{}", "Z1fvE".repeat(1600)),
            format!("_ZN1aIL{}", "_Z".repeat(4000)),
            doubling,
        ]
    }

    #[test]
    fn hostile_names_end_soon_on_a_small_stack() {
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
            for name in hostile() {
                let started = Instant::now();
                let text = demangle(name.as_bytes());
                let took = started.elapsed();
                assert!(text.len() <= MAX_OUTPUT_BYTES);
                // A bound on work, not a measurement: unbounded ones take minutes.
                assert!(took < Duration::from_secs(10), "{took:?} for {}", &name[..40]);
            }
        });
        thread.unwrap().join().unwrap();
    }
}
