//! `stop`: asks a running node to finish its jobs and end, as SIGTERM does.
//!
//! Owns: nothing but the question.

use super::{Context, Failure, unexpected};
use crate::control::{Answer, Request};

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let Answer::Accepted = context.ask(Request::Shutdown)? else {
        return Err(unexpected());
    };
    context.printer.note("the node finishes its jobs and ends\n");
    Ok(())
}
