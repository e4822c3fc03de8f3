//! `worker migrate`

use clap::Args;

use super::args::DatabaseArgs;

/// Create the schema `signaling`, or bring it up to date
///
/// Safe to run at any time, and from several places at once. It keeps its own bookkeeping in the schema, apart from
/// any migrations of the application.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  DATABASE_URL=postgres://localhost/app worker migrate")]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect(2).await?;
    match outbox.migrate().await?.as_slice() {
        [] => println!("the schema signaling is up to date"),
        versions => {
            let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
            println!(
                "the schema signaling is up to date: ran migration {}",
                versions.join(", ")
            );
        }
    }
    outbox.close().await;
    Ok(())
}
