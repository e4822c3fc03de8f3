//! `worker man`

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;

/// Print the manual page, or write one for each command
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker man | man -l -
  worker man --dir /usr/local/share/man/man1     then: man worker-run")]
pub(super) struct ManArgs {
    /// Write a page for each command into this directory, instead: worker.1, worker-run.1 and so on
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> anyhow::Result<()> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(dir) = &args.dir else {
        return super::print::print(page(command)?);
    };
    fs::create_dir_all(dir).with_context(|| format!("{} can't be made", dir.display()))?;
    for (name, page) in pages(&command)? {
        let path = dir.join(&name);
        fs::write(&path, page).with_context(|| format!("{} can't be written", path.display()))?;
        super::print::print_line(path.display().to_string())?;
    }
    Ok(())
}

/// The pages of `worker` and of each command, with their file names.
fn pages(command: &Command) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let subcommands = command.get_subcommands().cloned().map(|subcommand| {
        let name = format!("worker-{}", subcommand.get_name());
        subcommand.display_name(name)
    });
    std::iter::once(command.clone())
        .chain(subcommands)
        .map(|command| {
            let man = Man::new(command.clone());
            Ok((man.get_filename(), page(command)?))
        })
        .collect()
}

fn page(command: Command) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command)
        .source(concat!("worker ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    Ok(in_ascii(&String::from_utf8(page)?).into_bytes())
}

/// Replaces other characters by their roff escapes, because the program that formats the page may not know UTF-8.
fn in_ascii(page: &str) -> String {
    let mut ascii = String::with_capacity(page.len());
    for c in page.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            write!(ascii, "\\[u{:04X}]", u32::from(c)).ok();
        }
    }
    ascii
}
