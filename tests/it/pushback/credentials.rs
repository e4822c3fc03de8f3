//! Credentials that are wrong, and are put right while the fleet runs.

use tempfile::NamedTempFile;

use super::{lane, until_lane};
use testkit::fleet;
use testkit::{API_KEY, API_SECRET, APP_ID, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_costs_a_handful_of_calls_until_its_file_is_corrected() {
    let world = World::new().await;
    let secret = NamedTempFile::new().expect("a file");
    std::fs::write(&secret, "not the secret").expect("written");
    world.insert_many(300).await;
    world
        .execute("update signaling.outbox set max_attempts = 1")
        .await;
    let mut fleet = fleet(3, || {
        world
            .worker_without_app()
            .env("AGORA_APP_ID", APP_ID)
            .env("AGORA_API_KEY", API_KEY)
            .env(
                "AGORA_API_SECRET_FILE",
                secret.path().to_str().expect("a path"),
            )
    })
    .await;
    until_lane(&world, "hold = 'unauthorized' and hold_probes >= 3").await;
    let calls = world.seen().calls;
    assert!(
        calls < 20,
        "{calls} calls with a secret that is known to be wrong"
    );
    assert_eq!(
        world.count("status = 'pending' and attempts = 0").await,
        300
    );

    std::fs::write(&secret, API_SECRET).expect("written");
    world.until_all_final().await;
    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        300
    );
    assert!(fleet.iter_mut().all(testkit::Running::is_running));
    assert!(lane::<bool>(&world, "hold is null").await);
    assert_eq!((world.seen().accepted, world.seen().duplicates), (300, 0));
    assert!(
        world.seen().calls < 325,
        "{} calls for 300 messages",
        world.seen().calls
    );
}
