//! One function per role: resolve, build, run, stop.

use crate::cli::{AgentArgs, AllInOneArgs, Role, ServerArgs, WebArgs};
use crate::config::SymbolizerSection;

use super::Failure;
use super::resolve::{self, Outcome};

pub(super) fn all_in_one(args: &AllInOneArgs) -> Result<(), Failure> {
    let Outcome::Run(_section) = resolve::all_in_one(args, true)? else { return Ok(()) };
    Ok(())
}

pub(super) fn agent(args: &AgentArgs) -> Result<(), Failure> {
    let Outcome::Run(_section) = resolve::agent(args)? else { return Ok(()) };
    Ok(())
}

pub(super) fn collector(_args: &ServerArgs) -> Result<(), Failure> {
    Ok(())
}

pub(super) fn web(_args: &WebArgs) -> Result<(), Failure> {
    Ok(())
}

pub(super) fn symbolizer(args: &ServerArgs) -> Result<(), Failure> {
    match resolve::server::<SymbolizerSection>(args, SymbolizerSection::DEFAULT_FILE)? {
        Outcome::Checked => Ok(()),
        Outcome::Run(_) => Err(Failure::not_built_yet(Role::Symbolizer)),
    }
}
