//! `worker completions` and `worker man`

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::print::print;

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

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(args.shell, &mut command, "worker", &mut script);
    print(script)
}

/// Write a manual page for each command
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  worker man /usr/local/share/man/man1     then: man worker-run")]
pub(super) struct ManArgs {
    /// The directory for worker.1, worker-run.1 and so on
    dir: PathBuf,
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let (command, dir) = (Cli::command().disable_help_subcommand(true), &args.dir);
    fs::create_dir_all(dir).with_context(|| format!("{} can't be made", dir.display()))?;
    clap_mangen::generate_to(command, dir)
        .with_context(|| format!("the pages can't be written into {}", dir.display()))
}
