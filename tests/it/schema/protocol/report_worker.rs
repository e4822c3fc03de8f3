//! `signaling.report_worker`, `signaling.retire_worker` and the view `signaling.fleet`: the registry of workers.

use uuid::Uuid;

use testkit::World;

/// A worker of the default app that reports so many accepted messages, and why it has stepped aside. Returns how many
/// messages of the others were accepted, and how many others serve the app.
async fn report(world: &World, id: Uuid, accepted: i64, aside: Option<&str>) -> (i64, i32) {
    sqlx::query_as(
        "select others_accepted, others
         from signaling.report_worker($1, 'name of ' || $1, '1.2.3', 'a-host', '{default}', '{default}', array[$2],
                                      '{0}', '{false}', array[$3])",
    )
    .bind(id)
    .bind(accepted)
    .bind(aside)
    .fetch_one(&world.pool)
    .await
    .expect("reported")
}

/// An expression of the worker's row in `signaling.fleet`.
async fn fleet<T>(world: &World, id: Uuid, expression: &str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let row = format!("select {expression} from signaling.fleet where worker_id = '{id}'");
    world.ask(&row).await
}

#[tokio::test]
async fn a_worker_is_alive_until_thirty_seconds_after_its_last_report() {
    let world = World::new().await;
    let id = Uuid::new_v4();
    report(&world, id, 7, None).await;
    assert!(fleet::<bool>(&world, id, "is_alive and accepted = 7 and app = 'default'").await);
    for (ago, is_alive) in [("25 seconds", true), ("31 seconds", false)] {
        world
            .execute(&format!(
                "update signaling.worker set seen_at = now() - interval '{ago}'"
            ))
            .await;
        assert_eq!(
            fleet::<bool>(&world, id, "is_alive").await,
            is_alive,
            "{ago}"
        );
    }
    report(&world, id, 7, None).await;
    assert!(fleet::<bool>(&world, id, "is_alive").await);
}

#[tokio::test]
async fn a_worker_learns_how_the_calls_of_the_others_go() {
    let world = World::new().await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(report(&world, one, 7, None).await, (0, 0));
    assert_eq!(report(&world, two, 5, None).await, (7, 1));
    assert_eq!(report(&world, one, 7, None).await, (5, 1));
    // A worker that has stepped aside serves no app.
    report(&world, two, 5, Some("HTTP 401")).await;
    assert_eq!(report(&world, one, 7, None).await, (5, 0));
    // Nor does one that has died, and its counters are gone.
    world
        .execute(&format!(
            "update signaling.worker set seen_at = now() - interval '31 seconds' where worker_id = '{two}'"
        ))
        .await;
    assert_eq!(report(&world, one, 7, None).await, (0, 0));
}

#[tokio::test]
async fn a_worker_has_stepped_aside_since_its_first_report_of_that() {
    let world = World::new().await;
    let id = Uuid::new_v4();
    report(&world, id, 0, Some("HTTP 401")).await;
    let since: String = fleet(&world, id, "stepped_aside_at::text").await;
    report(&world, id, 0, Some("HTTP 403")).await;
    assert_eq!(
        fleet::<String>(&world, id, "stepped_aside_at::text").await,
        since
    );
    assert_eq!(
        fleet::<String>(&world, id, "stepped_aside_reason").await,
        "HTTP 403"
    );
    report(&world, id, 1, None).await;
    assert!(fleet::<bool>(&world, id, "stepped_aside_at is null").await);
}

#[tokio::test]
async fn a_worker_that_retires_leaves_nothing_behind() {
    let world = World::new().await;
    let id = Uuid::new_v4();
    report(&world, id, 7, None).await;
    world
        .execute(&format!("select signaling.retire_worker('{id}')"))
        .await;
    let rows = "select (select count(*) from signaling.worker) + (select count(*) from signaling.worker_app)";
    assert_eq!(world.ask::<i64>(rows).await, 0);
}
