//! `worker completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Print a script that makes a shell complete this command line
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker completions bash > /etc/bash_completion.d/worker
  worker completions zsh > \"${fpath[1]}/_worker\"
  worker completions fish > ~/.config/fish/completions/worker.fish
  source <(worker completions bash)     for this shell only")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(args.shell, &mut command, "worker", &mut script);
    super::print::print(script)
}
