//! Wrong credentials that an operator corrects while the fleet runs.

use tempfile::NamedTempFile;

use harness::{API_SECRET, Running, World, fleet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_costs_a_handful_of_calls_until_its_file_is_corrected() {
    for messages in [300, 3] {
        let world = World::new().await;
        let secret = NamedTempFile::new().expect("a file");
        std::fs::write(&secret, "not-the-secret").expect("written");
        let path = secret.path().to_str().expect("a path");
        world.insert_many(messages).await;
        world
            .set_messages("max_attempts = 1, at_most_once = id = 1")
            .await;
        let worker = || world.worker().without_env("AGORA_API_SECRET");
        let mut fleet = fleet(3, || worker().env("AGORA_API_SECRET_FILE", path)).await;
        world
            .until_lane("hold = 'unauthorized' and hold_probes >= 3 and hold_reason like '%401%'")
            .await;
        let calls = world.seen().calls;
        assert!(calls < 20, "{calls} calls with a wrong secret");
        let uncharged = "status = 'pending' and attempts = 0";
        assert_eq!(world.count(uncharged).await, i64::from(messages));

        std::fs::write(&secret, API_SECRET).expect("written");
        world.until_all_final().await;
        world.assert_sent_once(i64::from(messages)).await;
        assert!(fleet.iter_mut().all(Running::is_running));
        assert!(world.lane::<bool>("hold is null").await);
        let seen = world.seen();
        let found = (i64::try_from(seen.accepted), seen.duplicates);
        assert_eq!(found, (Ok(messages.into()), 0));
        assert!(seen.calls < seen.accepted + 25, "{seen:?}");
    }
}
