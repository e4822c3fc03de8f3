//! `signaling.report_worker`, `signaling.retire_worker` and the view `signaling.fleet`: the registry of workers.

use uuid::Uuid;

use super::set_workers;
use harness::World;

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
        set_workers(&world, &format!("seen_at = now() - interval '{ago}'")).await;
        let found = fleet::<bool>(&world, id, "is_alive").await;
        assert_eq!(found, is_alive, "{ago}");
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
}

#[tokio::test]
async fn the_sum_of_accepted_messages_does_not_change_when_a_worker_dies_or_returns() {
    let world = World::new().await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    report(&world, two, 5, None).await;
    assert_eq!(report(&world, one, 7, None).await, (5, 1));
    let died = format!("seen_at = now() - interval '31 seconds' where worker_id = '{two}'");
    set_workers(&world, &died).await;
    assert_eq!(report(&world, one, 7, None).await, (5, 0));
    report(&world, two, 5, None).await;
    assert_eq!(report(&world, one, 7, None).await, (5, 1));
}

#[tokio::test]
async fn a_worker_has_stepped_aside_since_its_first_report_of_that() {
    let world = World::new().await;
    let id = Uuid::new_v4();
    report(&world, id, 0, Some("HTTP 401")).await;
    let since: String = fleet(&world, id, "stepped_aside_at::text").await;
    report(&world, id, 0, Some("HTTP 403")).await;
    let aside = "stepped_aside_at || ': ' || stepped_aside_reason";
    let found: String = fleet(&world, id, aside).await;
    assert_eq!(found, format!("{since}: HTTP 403"));
    report(&world, id, 1, None).await;
    assert!(fleet::<bool>(&world, id, "stepped_aside_at is null").await);
}

/// A worker of two apps that reports what of each was accepted, and of which it doubts. Returns, for each app, how many
/// messages of the others were accepted, and how many others serve the app.
async fn report_both(
    world: &World,
    id: Uuid,
    accepted: [i64; 2],
    doubting: [bool; 2],
) -> [(i64, i32); 2] {
    let rows: Vec<(i64, i32)> = sqlx::query_as(
        "select others_accepted, others
         from signaling.report_worker($1, 'name', '1.2.3', 'a-host', '{one,two}', '{one,two}', $2, '{3,4}', $3,
                                      '{null,null}')
         order by app",
    )
    .bind(id)
    .bind(accepted.as_slice())
    .bind(doubting.as_slice())
    .fetch_all(&world.pool)
    .await
    .expect("reported");
    rows.try_into().expect("a row for each app")
}

#[tokio::test]
async fn each_app_has_counters_of_its_own() {
    let world = World::new().await;
    let [a, b, c] = [(); 3].map(|()| Uuid::new_v4());
    report_both(&world, a, [10, 1], [false, false]).await;
    report_both(&world, b, [20, 2], [false, false]).await;
    let found = report_both(&world, c, [100, 100], [false, false]).await;
    assert_eq!(found, [(30, 2), (3, 2)]);
    // A report of one app says nothing of the other.
    let only: Vec<(String, i64, i32)> = sqlx::query_as(
        "select * from signaling.report_worker($1, 'name', '1.2.3', 'a-host', '{one,two}', '{one}', '{11}', '{0}',
                                               '{false}', '{null}')",
    )
    .bind(a)
    .fetch_all(&world.pool)
    .await
    .expect("reported");
    assert_eq!(only, [("one".to_owned(), 120, 2)]);
    let found = report_both(&world, c, [100, 100], [false, false]).await;
    assert_eq!(found, [(31, 2), (3, 2)]);
    let failed =
        format!("select failed from signaling.worker_app where worker_id = '{b}' order by app");
    assert_eq!(world.column::<i64>(&failed).await, [3, 4]);
}

#[tokio::test]
async fn a_worker_that_doubts_serves_no_app_and_its_accepted_messages_count() {
    let world = World::new().await;
    let [a, b] = [(); 2].map(|()| Uuid::new_v4());
    report_both(&world, a, [10, 1], [true, false]).await;
    let found = report_both(&world, b, [0, 0], [false, false]).await;
    assert_eq!(found, [(10, 0), (1, 1)]);
    report_both(&world, a, [10, 1], [false, false]).await;
    let found = report_both(&world, b, [0, 0], [false, false]).await;
    assert_eq!(found, [(10, 1), (1, 1)]);
}

#[tokio::test]
async fn a_report_without_news_writes_the_workers_row_alone() {
    let world = World::new().await;
    let id = Uuid::new_v4();
    let versions = "select string_agg(ctid::text, ' ') from signaling.worker_app";
    report(&world, id, 7, Some("HTTP 401")).await;
    let before: String = world.ask(versions).await;
    let seen_at = "select seen_at::text from signaling.worker";
    let seen: String = world.ask(seen_at).await;
    report(&world, id, 7, Some("HTTP 401")).await;
    assert_eq!(world.ask::<String>(versions).await, before);
    assert_ne!(world.ask::<String>(seen_at).await, seen);
    report(&world, id, 8, Some("HTTP 401")).await;
    assert_ne!(world.ask::<String>(versions).await, before);
}

#[tokio::test]
async fn a_worker_that_retires_deletes_its_own_rows_alone() {
    let world = World::new().await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    report(&world, one, 7, None).await;
    report(&world, two, 5, None).await;
    for _ in 0..2 {
        let retire = format!("select signaling.retire_worker('{one}')");
        world.execute(&retire).await;
    }
    for table in ["worker", "worker_app"] {
        let left = format!("select worker_id from signaling.{table}");
        assert_eq!(world.column::<Uuid>(&left).await, [two], "{table}");
    }
    assert_eq!(report(&world, two, 5, None).await, (0, 0));
}

#[tokio::test]
async fn a_worker_that_has_not_been_seen_for_a_day_is_deleted() {
    let world = World::new().await;
    let (dead, quiet, alive) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    for (id, ago) in [(dead, "25 hours"), (quiet, "23 hours")] {
        report(&world, id, 7, None).await;
        let seen = format!("seen_at = now() - interval '{ago}' where worker_id = '{id}'");
        set_workers(&world, &seen).await;
    }
    // Each report deletes old workers with a probability of 1 %. That none of 2,000 reports does has a chance of 1 in
    // 500 million.
    world
        .execute(&format!(
            "do $$ begin
                 for n in 1..2000 loop
                     perform signaling.report_worker('{alive}', 'n', '1', 'h', '{{default}}', '{{default}}', array[n::bigint],
                                                     '{{0}}', '{{false}}', '{{null}}');
                 end loop;
             end $$"
        ))
        .await;
    let kept = "select worker_id from signaling.worker_app";
    let kept: Vec<Uuid> = world.column(kept).await;
    assert!(!kept.contains(&dead) && kept.contains(&quiet), "{kept:?}");
}
