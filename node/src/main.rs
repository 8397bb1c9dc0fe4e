//! The program `cocoon-node`.
//!
//! Owns: the process's beginning and its exit code. Must not: hold anything else.

use std::process::ExitCode;

fn main() -> ExitCode {
    cocoon_node::cli::main()
}
