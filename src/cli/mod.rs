//! Arguments to a command; a command to an exit code.
//!
//! The role is chosen by the program's name, else by the first argument. Declares options only: what they mean
//! together with files and variables is resolved in `config`.

mod args;
mod role;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

pub use args::{AgentArgs, AllInOneArgs, Cli, Command, LaterArgs, ServerArgs, SetupArgs, WebArgs};
pub use role::Role;

/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;

/// Parses arguments, first the program's name. `Err` is the exit code after help, version or a mistake was printed.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, ExitCode> {
    let arguments = role::with_role(arguments.into_iter().collect());
    let matches = match Cli::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // A closed pipe behind `--help | head` is a normal end.
            let _ = error.print();
            return Err(if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS });
        }
    };
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => Ok(cli.command),
        Err(error) => {
            let _ = error.print();
            Err(ExitCode::from(EXIT_USAGE))
        }
    }
}

/// Runs a program from its arguments to its exit code: 0 done, 1 failed, 2 wrong usage or configuration.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match parse(arguments) {
        Ok(command) => command,
        Err(code) => return code,
    };
    match crate::run::run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_error(&failure.to_string());
            ExitCode::from(if failure.is_usage() { EXIT_USAGE } else { 1 })
        }
    }
}

/// Errors go to standard error as they are: messages carry their own `error:` and `hint:` lines.
#[allow(clippy::print_stderr, reason = "the one place where a program tells why it ends")]
fn print_error(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(role: &str) -> String {
        let mut command = Cli::command().term_width(110);
        let command =
            if role.is_empty() { &mut command } else { command.find_subcommand_mut(role).expect("a role") };
        command.render_long_help().to_string()
    }

    #[test]
    fn declarations_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_every_role_teaches() {
        insta::assert_snapshot!("help", help(""));
        for role in Role::ALL {
            insta::assert_snapshot!(format!("help_{}", role.name()), help(role.name()));
        }
    }
}
