//! Rows as busy workers leave them behind.

use harness::World;

/// Inserts an hour of minute stats. The calls rise and fall, and some fail.
pub(super) async fn an_hour_of_stats(world: &World, app: &str) {
    world
        .execute(&format!(
            "insert into signaling.minute_stats (minute, app, message_sent, message_delivered, message_offline, failed, expired, unknown,
                                           calls_transient, calls_throttled, calls_rejected, calls_unauthorized, calls_ambiguous,
                                           call_time, queue_wait, backlog)
             select date_trunc('minute', now()) - n * interval '1 minute', '{app}', level * 40, level * 12, level * 2, n % 3, 0, 0,
                    level / 2 + n % 4, case when n between 20 and 24 then 60 else 0 end, n % 3, 0, n % 2,
                    array[0, 0, 0, level, level * 30, level * 20, level * 3, level, level / 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                    array[0, 0, 0, 0, level * 5, level * 20, level * 20, level * 8, level * 4, level, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                    greatest(0, 9000 * sin(n / 9.0))::bigint
             from generate_series(1, 61) as n
             cross join lateral (select (300 + 180 * sin(n / 7.0))::bigint as level) as wave"
        ))
        .await;
}

/// Inserts `each` messages of every state.
pub(super) async fn messages_of_all_states(world: &World, each: i32) {
    world
        .execute(&format!(
            "alter table signaling.outbox disable trigger user;
             insert into signaling.outbox (app, sender, destination, channel_name, wait_for_ack, at_most_once, payload, status, attempts,
                                           sent_at, finished_at, due_at, created_at, http_status, error)
             select 'default', 'order-events', case when not to_channel then 'user-' || n % 40 end,
                    case when to_channel then 'lobby-' || n % 3 end, waits, status = 'unknown', '{{\"order\": ' || n || '}}',
                    status, calls,
                    case when calls > 0 then created_at + interval '1 second' end,
                    case when status <> 'pending' then created_at + interval '2 seconds' end,
                    case when scheduled then now() + interval '1 hour' else created_at end, created_at, http_status, error
             from generate_series(1, {each}) as n,
                  (values ('message_sent', 1, false, 200, null), ('message_delivered', 1, false, 200, null),
                          ('message_offline', 1, false, 200, null),
                          ('failed', 1, false, 400, 'HTTP 400, result \"failed\": illegal parameter'),
                          ('expired', 0, false, null, 'not sent before its expires_at'), ('cancelled', 0, false, null, null),
                          ('unknown', 1, false, null, 'no response within 15s'), ('pending', 0, false, null, null),
                          ('pending', 0, true, null, null),
                          ('pending', 1, false, 500, 'HTTP 500, result \"failed\": internal error'))
                      as kind (status, calls, scheduled, http_status, error)
             -- Only a peer can acknowledge a message.
             cross join lateral (select status in ('message_delivered', 'message_offline') as waits) as ack
             cross join lateral (select n % 4 = 0 and not waits as to_channel) as target
             cross join lateral (select now() - (({each} - n) * 7 + 3) * interval '1 second' as created_at) as age
             order by n, status;
             alter table signaling.outbox enable trigger user;
             insert into signaling.attempt (message_id, attempt, sent_at, duration, http_status, outcome, error, fault, charged,
                                            evidence, claimed_by, recorded_at)
             select id, 1, sent_at, case status when 'unknown' then interval '15 seconds' else interval '34 milliseconds' end, http_status,
                    case status when 'failed' then 'rejected' when 'unknown' then 'ambiguous' else 'transient' end, error,
                    'message', true,
                    case status when 'failed' then 'the API rejects the message'
                                else 'the API has accepted 61 of the last 64 messages of this worker' end,
                    'worker-1', sent_at + interval '40 milliseconds'
             from signaling.outbox where error is not null and attempts > 0 order by id"
        ))
        .await;
}
