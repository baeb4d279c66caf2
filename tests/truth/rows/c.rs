//! C: one source by two compilers in every way they optimise, recursion, signals, jumps, contexts.

use crate::row::{Build, Chains, Load, Oracle, Row};

const MAIN: &[&str] = &["main ~ _start"];
const RUN: &[&str] = &["run main ~ _start"];

/// `shapes.c`, without the call that compilers make a jump.
const SHAPES: &[&str] = &[
    "spin sized",
    "spin aligned",
    "spin aligned_sized",
    "spin takes_many gives_many",
    "spin saves_all",
    "spin variadic",
    "spin large",
    "spin compare ~ sorts",
    "jumps",
    "spin jumped_to",
    "spin jumped_to by_pointer",
    "spin hot_and_cold",
    "spin rare hot_and_cold",
    "spin descends*10",
    "~ copies",
];

/// The same where every call is a call.
const SHAPES_WITHOUT_JUMPS: &[&str] = &[
    "spin sized",
    "spin aligned",
    "spin aligned_sized",
    "spin takes_many gives_many",
    "spin saves_all",
    "spin variadic",
    "spin large",
    "spin compare ~ sorts",
    "spin jumped_to jumps",
    "spin jumped_to by_pointer",
    "spin hot_and_cold",
    "spin rare hot_and_cold",
    "spin descends*10",
    "~ copies",
];

/// Name, compiler, flags.
const COMPILED: &[(&str, &str, &[&str])] = &[
    ("gcc-O0", "gcc", &["-O0"]),
    ("gcc-O1", "gcc", &["-O1"]),
    ("gcc-O2", "gcc", &["-O2"]),
    ("gcc-O3", "gcc", &["-O3", "-march=x86-64-v2"]),
    ("gcc-Os", "gcc", &["-Os"]),
    ("gcc-fp", "gcc", &["-O2", "-fno-omit-frame-pointer"]),
    ("gcc-lto", "gcc", &["-O2", "-flto"]),
    ("gcc-hotcold", "gcc", &["-O2", "-freorder-blocks-and-partition", "-ffunction-sections"]),
    ("gcc-static", "gcc", &["-O2", "-static", "-no-pie"]),
    ("gcc-static-pie", "gcc", &["-O2", "-static-pie"]),
    ("gcc-lazy-plt", "gcc", &["-O2", "-fcf-protection=full", "-Wl,-z,lazy", "-no-pie"]),
    ("gcc-no-header", "gcc", &["-O2", "-Wl,--build-id=none", "-Wl,--no-eh-frame-hdr"]),
    ("clang-O0", "clang", &["-O0"]),
    ("clang-O1", "clang", &["-O1"]),
    ("clang-O2", "clang", &["-O2"]),
    ("clang-O3", "clang", &["-O3", "-march=x86-64-v2"]),
    ("clang-Os", "clang", &["-Os"]),
    ("clang-lto", "clang", &["-O2", "-flto", "-fuse-ld=lld"]),
];

/// Name, compiler, flags; trained first.
const TRAINED: &[(&str, &str, &[&str])] = &[
    ("gcc-pgo", "gcc", &["-O2", "-freorder-blocks-and-partition"]),
    ("gcc-pgo-lto", "gcc", &["-O3", "-flto"]),
    ("clang-pgo", "clang", &["-O2"]),
    ("clang-split", "clang", &["-O2", "-fsplit-machine-functions", "-fuse-ld=lld"]),
];

/// Functions of `shapes.c` whose every instruction is looked at: prologue, body, epilogue.
const STEPPED: &[&str] = &[
    "sized",
    "aligned",
    "aligned_sized",
    "gives_many",
    "takes_many",
    "saves_all",
    "variadic",
    "large",
    "sorts",
    "compare",
    "jumped_to",
    "descends",
    "by_pointer",
];

/// Name, depth, chains.
const RECURSION: &[(&str, &[&str], &[&str])] = &[
    ("recursion-1", &["1"], &["leaf down"]),
    ("recursion-10", &["10"], &["leaf down*10"]),
    ("recursion-100", &["100"], &["leaf down*100"]),
    ("recursion-500", &["500"], &["leaf down*500"]),
    ("recursion-1000", &["1000"], &["leaf down*1000"]),
];

/// `signals.c`.
const SIGNALS: Chains =
    Chains { paths: &["busy_leaf busy"], below: MAIN, interrupts: &["tick_work tick", "nested_work nested"] };

/// `jumps.c` by its second argument.
const LONGJMP: Chains =
    Chains { paths: &["spin deeper*8 jumping", "spin jumping"], below: MAIN, interrupts: &[] };
const UCONTEXT: Chains = Chains {
    paths: &["spin fiber_step fiber ~", "spin switching main ~ _start"],
    below: &[],
    interrupts: &[],
};
const VFORK: Chains = Chains { paths: &["spin child forking"], below: MAIN, interrupts: &[] };

/// `chain.c`: threads.
const THREADS: Chains = Chains {
    paths: &["leaf_spin gamma_step beta alpha run worker ~", "leaf_spin delta run worker ~", "main ~ _start"],
    below: &[],
    interrupts: &[],
};

fn own(name: &'static str, build: Build, arguments: &'static [&'static str], chains: Chains) -> Row {
    Row { name: name.into(), build, load: Load::Own(arguments), oracle: Oracle::Chains(chains), short: false }
}

fn compiled(source: &'static str, compiler: &'static str, flags: &[&'static str]) -> Build {
    Build::Compiled { compiler, source, flags: flags.to_vec() }
}

/// Chains of `shapes.c` as compilers make it with these flags.
fn shapes(flags: &[&str]) -> Chains {
    let every_call = flags.contains(&"-O0") || flags.contains(&"-O1");
    let paths = if every_call { SHAPES_WITHOUT_JUMPS } else { SHAPES };
    Chains { paths, below: RUN, interrupts: &[] }
}

/// All rows of C.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, compiler, flags) in COMPILED {
        let row = own(name, compiled("shapes.c", compiler, flags), &[], shapes(flags));
        rows.push(if matches!(*name, "gcc-O2" | "clang-O2" | "gcc-O0") { row.short() } else { row });
    }
    for (name, compiler, flags) in TRAINED {
        let build = Build::Trained { compiler, source: "shapes.c", flags: flags.to_vec() };
        rows.push(own(name, build, &[], shapes(flags)));
    }
    for (name, compiler, flags) in [
        ("stepped-gcc-O0", "gcc", &["-O0"][..]),
        ("stepped-gcc-O2", "gcc", &["-O2"]),
        ("stepped-gcc-Os", "gcc", &["-Os"]),
        ("stepped-clangO2", "clang", &["-O2"]),
        ("stepped-clangOs", "clang", &["-Os"]),
    ] {
        let mut row = own(name, compiled("shapes.c", compiler, flags), &[], Chains::default());
        row.oracle = Oracle::Stepped(shapes(flags), STEPPED);
        rows.push(row);
    }
    for (name, libc, flags) in
        [("musl-dynamic", "musl-gcc", &["-O2"][..]), ("musl-static", "musl-gcc", &["-O2", "-static"])]
    {
        rows.push(own(name, compiled("shapes.c", libc, flags), &[], shapes(flags)));
    }
    let threads = ["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"];
    rows.push(own("threads", compiled("chain.c", "gcc", &threads), &["2"], THREADS));
    rows.push(own("musl-threads", compiled("chain.c", "musl-gcc", &threads), &["2"], THREADS));
    for (name, depth, paths) in RECURSION {
        let chains = Chains { paths, below: MAIN, interrupts: &[] };
        let row = own(name, compiled("recursion.c", "gcc", &["-O2"]), depth, chains);
        rows.push(if *name == "recursion-1000" { row.short() } else { row });
    }
    for (name, alternate, compiler) in [
        ("signals", &["0"][..], "gcc"),
        ("signals-alt", &["1"], "gcc"),
        ("signals-clang", &["0"], "clang"),
        ("signals-musl", &["1"], "musl-gcc"),
    ] {
        let row = own(name, compiled("signals.c", compiler, &["-O2"]), alternate, SIGNALS);
        rows.push(if name == "signals-alt" { row.short() } else { row });
    }
    rows.push(own("longjmp", compiled("jumps.c", "gcc", &["-O2"]), &["longjmp"], LONGJMP));
    rows.push(own("ucontext", compiled("jumps.c", "gcc", &["-O2"]), &["ucontext"], UCONTEXT).short());
    rows.push(own("vfork", compiled("jumps.c", "gcc", &["-O2"]), &["vfork"], VFORK));
    rows
}
