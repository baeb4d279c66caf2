//! Version and licences, as the agent's documented flags print them.

/// Prints to standard output.
#[allow(clippy::print_stdout, reason = "the person asked for this text")]
pub(super) fn print(copyright: bool) {
    if copyright {
        println!("everflame: Apache License 2.0; its kernel programs: GNU General Public License 2.0");
    } else {
        println!("everflame {}", env!("CARGO_PKG_VERSION"));
    }
}
