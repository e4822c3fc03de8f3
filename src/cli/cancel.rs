//! `worker cancel`

use clap::Args;

use super::args::DatabaseArgs;
use super::print::print_line;

/// Cancel messages that are not being sent
///
/// The same in SQL: select signaling.cancel(17).
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  worker cancel 17 18")]
pub(super) struct CancelArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The messages
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
}

pub(super) async fn run(args: CancelArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    let mut refused = 0;
    // A line that can't be printed stops no cancellation.
    let mut printed = Ok(());
    for id in args.ids {
        if outbox.cancel(id).await? {
            printed = printed.and(print_line(format!("{id} cancelled")));
        } else {
            refused += 1;
            printed = printed.and(print_line(format!(
                "{id} not cancelled: it is being sent, is final already, or does not exist"
            )));
        }
    }
    outbox.close().await;
    printed?;
    anyhow::ensure!(refused == 0, "not all messages were cancelled");
    Ok(())
}
