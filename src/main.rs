//! The binary: see [`signaling_worker::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    signaling_worker::cli::main()
}
