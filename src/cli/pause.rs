//! `worker pause` and `worker resume`

use clap::Args;

use super::args::{DatabaseArgs, operator, parse_reason};
use super::print::print_line;

/// Keep an app from sending, on all hosts at once
///
/// Its messages wait, and calls in flight are finished. The same in SQL: select signaling.pause('default', 'why').
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  worker pause default --reason 'the vendor is down for maintenance'"
)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The app, as in the column `app`
    app: String,

    /// Why, for the others
    #[arg(long, value_parser = parse_reason)]
    reason: Option<String>,
}

/// Let an app send again that is paused, or that the API has asked to wait
///
/// A hold stays until a probe gets a response that shows that the API works; the command says so. The same in SQL: select signaling.resume('default').
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  worker resume default")]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The app, as in the column `app`
    app: String,
}

pub(super) async fn pause(args: PauseArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    if outbox
        .pause(&args.app, args.reason.as_deref(), &operator())
        .await?
    {
        print_line(format!("{} is paused", args.app))?;
    } else {
        print_line(format!(
            "{} was paused already: see worker status for who did it and why",
            args.app
        ))?;
    }
    outbox.close().await;
    Ok(())
}

pub(super) async fn resume(args: ResumeArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    let resumed = outbox.resume(&args.app).await?;
    print_line(format!("{}: {resumed}", args.app))?;
    outbox.close().await;
    Ok(())
}
