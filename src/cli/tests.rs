//! Generates docs/reference.md from the descriptions of the command line, for readers without the program.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

const PATH: &str = "docs/reference.md";

const HEAD: &str = "# Commands and settings

For operators. A test generates this page from the command line's own description. `worker help COMMAND` and the manual
pages (`worker man`) have the same text.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

- A flag wins over its variable. An empty variable counts as not set.
- Write durations as `200ms`, `15s`, `5m`, `12h` or `30d`.
- Write times as `2030-01-31T12:00:00Z`. A date such as `2030-01-31` means its midnight in UTC.
- The worker [trims](setup.md#values-and-secrets) white space around values.

";

/// Options that many commands have. The page shows them once.
const SHARED_HEADINGS: [&str; 2] = ["Database", "Logs"];

#[test]
fn the_reference_is_the_description_of_the_command_line() {
    let mut command = super::Cli::command();
    command.build();
    let mut page = HEAD.to_owned();
    let run = command.find_subcommand("run").expect("a command");
    for heading in SHARED_HEADINGS {
        write!(page, "## {heading}\n\n").unwrap();
        if heading == "Database" {
            page += "All commands except `dev`, `simulate`, `health`, `completions` and `man` have these options. See also the\n[connection parameters](setup.md#connection-parameters).\n\n";
        }
        page += &table(run.get_arguments(), Some(heading));
    }
    for command in command.get_subcommands() {
        if command.get_name() != "help" && !command.is_hide_set() {
            page += &section(command);
        }
    }
    let page = page.trim_end().to_owned() + "\n";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PATH);
    if std::env::var_os("WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "{PATH} is old: WRITE_REFERENCE=1 cargo test --lib reference"
    );
}

fn section(command: &Command) -> String {
    let mut section = format!("## worker {}\n\n", command.get_name());
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    for paragraph in about.split("\n\n") {
        write!(section, "{}.\n\n", paragraph.trim().trim_end_matches('.')).unwrap();
    }
    let is_own = |argument: &&Arg| {
        let heading = argument.get_help_heading().unwrap_or_default();
        let is_shared = SHARED_HEADINGS.contains(&heading);
        // The heading of a flattened struct may spread to the options after it.
        let is_of_heading = matches!(
            argument.get_id().as_str(),
            "database_url" | "database_url_file" | "log" | "log_format"
        );
        assert_eq!(
            is_shared,
            is_of_heading,
            "{}: {}",
            command.get_name(),
            argument.get_id()
        );
        !is_shared
    };
    section += &table(command.get_arguments().filter(is_own), None);
    if let Some(text) = command.get_after_long_help().or(command.get_after_help()) {
        write!(section, "```text\n{}\n```\n\n", text.to_string().trim()).unwrap();
    }
    section
}

/// A row for each argument, of one heading or of all.
fn table<'a>(arguments: impl Iterator<Item = &'a Arg>, heading: Option<&str>) -> String {
    let mut rows = String::new();
    for argument in arguments {
        let is_listed = heading.is_none_or(|heading| argument.get_help_heading() == Some(heading));
        if is_listed && !argument.is_hide_set() && argument.get_id() != "help" {
            rows += &row(argument);
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!("| Option | Variable | Default | Meaning |\n|---|---|---|---|\n{rows}\n")
}

fn row(argument: &Arg) -> String {
    let option = match argument.get_long() {
        Some(long) => format!("--{long}"),
        None => argument.get_value_names().unwrap_or_default().join(" "),
    };
    let variable = argument.get_env().map(|name| name.to_string_lossy());
    let variable = variable.map(|name| format!("`{name}`")).unwrap_or_default();
    let help = argument.get_long_help().or(argument.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    // A default that depends on another setting stands at the end of the text.
    let (help, stated) = match help.rsplit_once("[default: ") {
        Some((help, default)) => (help.to_owned(), default.trim_end_matches(']').to_owned()),
        None => (help, String::new()),
    };
    let takes_value = argument.get_action().takes_values();
    let defaults = argument.get_default_values().iter();
    let default = defaults.map(|value| format!("`{}`", value.to_string_lossy()));
    let default = match default.collect::<Vec<_>>().join(", ") {
        default if takes_value && !default.is_empty() => default,
        _ => stated,
    };
    let mut help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let values = argument.get_possible_values();
    if takes_value && !values.is_empty() {
        let values = values.iter().map(|value| format!("`{}`", value.get_name()));
        let values = values.collect::<Vec<_>>().join(", ");
        help = format!("{}: {values}", help.trim_end_matches('.'));
    }
    let help = help.trim_end_matches('.').replace('|', "\\|");
    format!("| `{option}` | {variable} | {default} | {help}. |\n")
}
