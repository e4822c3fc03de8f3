//! The binary `worker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    signaling_worker::main()
}
