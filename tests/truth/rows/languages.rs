//! C++, Rust and Go.

use crate::row::{Build, Chains, Load, Oracle, Row};

const MAIN: &[&str] = &["main ~ _start"];

/// `exceptions.cpp`: guards are destroyed at each depth while the stack is unwound.
const EXCEPTIONS: Chains = Chains {
    paths: &[
        "thrower guarded*6 rethrower catcher",
        "_ZN5GuardD… guarded*6 rethrower catcher",
        "_ZN5GuardD… guarded*5 rethrower catcher",
        "_ZN5GuardD… guarded*4 rethrower catcher",
        "_ZN5GuardD… guarded*3 rethrower catcher",
        "_ZN5GuardD… guarded*2 rethrower catcher",
        "_ZN5GuardD… guarded*1 rethrower catcher",
    ],
    below: MAIN,
    interrupts: &[],
};

/// `objects.cpp`. What stands between a lambda and its user is the library's, and sometimes nothing.
const OBJECTS: Chains = Chains {
    paths: &[
        "spin _ZN4Both5first… calls_first",
        "spin _ZN4Both6second… calls_second",
        "_ZThn… calls_second",
        "spin _ZZ4main… calls_function",
        "spin _ZZ4main… ~ calls_function",
        "spin _Z6nestedILi0E… _Z6nestedILi1E… _Z6nestedILi2E… _Z6nestedILi3E… _Z6nestedILi4E…",
        "spin _ZZ5sorts… sorts",
        "spin _ZZ5sorts… ~ sorts",
    ],
    below: MAIN,
    interrupts: &[],
};

/// `coroutines.cpp` by gcc: who hands over directly is no longer on the stack.
const COROUTINES: Chains = Chains {
    paths: &[
        "spin _Z7numbers… reads",
        "_Z7numbers…",
        "spin _Z5inner… drives",
        "spin _Z5outer… drives",
        "_Z5inner… _Z5outer… drives",
        "_Z5inner… _Z5inner… _Z5outer… drives",
        "_Z5outer… _Z5outer… drives",
    ],
    below: MAIN,
    interrupts: &[],
};

/// The same by clang 14, which calls where it hands over: each task stands on the one that it continues.
const NESTED_COROUTINES: Chains = Chains {
    paths: &[
        "spin _Z7numbers… reads",
        "_Z7numbers…",
        "spin _Z5inner… _Z5outer… drives",
        "spin _Z5outer… _Z5inner… _Z5outer… drives",
        "spin _Z5inner… _Z5outer… _Z5inner… _Z5outer… drives",
        "_Z5inner… _Z5outer… _Z5inner… _Z5outer… _Z5inner… _Z5outer… drives",
    ],
    below: MAIN,
    interrupts: &[],
};

/// `chain.rs`: threads.
const RUST_CHAIN: Chains = Chains {
    paths: &[
        "chain::leaf_spin chain::gamma_step chain::beta chain::alpha chain::run ~",
        "chain::leaf_spin chain::delta chain::run ~",
        "chain::main ~ main ~ _start",
    ],
    below: &[],
    interrupts: &[],
};

/// `tasks.rs`, in the first thread and in another.
const RUST_TASKS: Chains = Chains {
    paths: &[
        "spin tasks::innermost… tasks::middle… tasks::outermost… execute",
        "spin tasks::middle… tasks::outermost… execute",
        "spin <tasks::Round␣as␣tasks::Shape>::size sizes",
        "spin <tasks::Square␣as␣tasks::Shape>::size sizes",
        "spin panics*6 catches",
        "spin panics*6 ~ catches",
    ],
    below: &["work tasks::main ~ main ~ _start", "work ~"],
    interrupts: &[],
};

/// `calls.go`. A value in an interface may be called through a wrapper, a deferred call through another.
const GO_CALLS: Chains = Chains {
    paths: &[
        "main.spin main.large",
        "main.spin main.round.size main.viaInterface",
        "main.spin main.round.size main.(*round).size main.viaInterface",
        "main.spin main.makes.func1 main.viaClosure",
        "main.throws main.caught",
        "main.spin main.recovers ~ main.throws main.caught",
        "main.spin main.recovers main.caught.deferwrap1 ~ main.throws main.caught",
        "main.spin main.allocates",
        "main.spin main.descends*40",
    ],
    below: &["main.turn main.worker ~"],
    interrupts: &[],
};

/// `cgo.go`, from the first goroutine and from another.
const CGO: Chains = Chains {
    paths: &[
        "cLeaf cWork ~ main.goWork",
        "main.goBackWork ~ cAcross ~ main.goAcross",
        "main.goBackWork main.goBack ~ cAcross ~ main.goAcross",
    ],
    below: &["main.worker main.main ~", "main.worker main.main.func1 ~"],
    interrupts: &[],
};

/// Suites and their Go.
const GO_VERSIONS: &[(&str, &str, &str, &str)] = &[
    ("go-1.15", "go-1.15-cgo", "bullseye", "1.15"),
    ("go-1.19", "go-1.19-cgo", "bookworm", "1.19"),
    ("go-1.24", "go-1.24-cgo", "trixie", "1.24"),
    ("go-1.27", "go-1.27-cgo", "sid", "1.27"),
];

fn row(name: &'static str, build: Build, chains: &Chains) -> Row {
    Row {
        name: name.into(),
        build,
        load: Load::Own(&[]),
        oracle: Oracle::Chains(chains.clone()),
        short: false,
    }
}

fn cpp(name: &'static str, source: &'static str, compiler: &'static str, optimise: &'static str) -> Row {
    let chains = match source {
        "exceptions.cpp" => &EXCEPTIONS,
        "objects.cpp" => &OBJECTS,
        _ if compiler == "clang++" => &NESTED_COROUTINES,
        _ => &COROUTINES,
    };
    row(name, Build::Compiled { compiler, source, flags: vec!["-std=c++20", optimise] }, chains)
}

fn rust(name: &'static str, source: &'static str, flags: &[&'static str], chains: &Chains) -> Row {
    row(name, Build::Rust { source, flags: flags.to_vec() }, chains)
}

/// All rows of these languages.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        cpp("exceptions-gcc", "exceptions.cpp", "g++", "-O2").short(),
        cpp("exceptions-llvm", "exceptions.cpp", "clang++", "-O2"),
        cpp("objects-gcc", "objects.cpp", "g++", "-O2"),
        cpp("objects-gcc-O3", "objects.cpp", "g++", "-O3"),
        cpp("objects-llvm", "objects.cpp", "clang++", "-O2"),
        cpp("coroutines-gcc", "coroutines.cpp", "g++", "-O2"),
        cpp("coroutines-llvm", "coroutines.cpp", "clang++", "-O2"),
        rust("rust-chain", "chain.rs", &["-O", "-C", "force-frame-pointers=no"], &RUST_CHAIN),
        rust("rust-async", "tasks.rs", &["-O", "-C", "force-frame-pointers=no"], &RUST_TASKS).short(),
        rust("rust-async-lto", "tasks.rs", &["-C", "opt-level=3", "-C", "lto=fat"], &RUST_TASKS),
        row("go-on-path", Build::Go { from: None, source: "calls.go", cgo: false }, &GO_CALLS).short(),
        row("go-on-path-cgo", Build::Go { from: None, source: "cgo.go", cgo: true }, &CGO),
    ];
    for (plain, cgo, suite, version) in GO_VERSIONS {
        let from = Some((*suite, *version));
        rows.push(row(plain, Build::Go { from, source: "calls.go", cgo: false }, &GO_CALLS));
        rows.push(row(cgo, Build::Go { from, source: "cgo.go", cgo: true }, &CGO));
    }
    rows
}
