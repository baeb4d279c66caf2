//! Entry of every role: the program's name or the first argument says which.

use std::process::ExitCode;

fn main() -> ExitCode {
    everflame::cli::main(std::env::args_os())
}
