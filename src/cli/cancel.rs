//! `worker cancel`

use clap::Args;

use super::args::DatabaseArgs;

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
    for id in args.ids {
        if outbox.cancel(id).await? {
            println!("{id} cancelled");
        } else {
            refused += 1;
            println!("{id} not cancelled: it is being sent, is final already, or does not exist");
        }
    }
    outbox.close().await;
    anyhow::ensure!(refused == 0, "not all messages were cancelled");
    Ok(())
}
