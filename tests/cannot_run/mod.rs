//! What a test says that cannot run here. Shared by unit tests, scenes and kernel tests.

/// Says why `what` is not tested. In CI everything has to run, so there it is a failure.
#[allow(clippy::print_stderr, reason = "a test that does nothing must say so")]
pub(crate) fn cannot_run(what: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what} cannot run here: {why}; CI has to run everything");
    eprintln!("{what} cannot run here: {why}");
}
