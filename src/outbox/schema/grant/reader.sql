-- A reader: what becomes of messages, and how each app is doing, without the content of messages (payload, and
-- dedupe_key and traceparent, which producers may make of it). Enough for `worker status`.
grant usage on schema signaling to :"role";
grant select on signaling.delivery_status, signaling.attempt, signaling.lane, signaling.schema_migrations to :"role";
grant select (id, app, sender, destination, channel_name, wait_for_ack, enable_offline_messaging,
              enable_historical_messaging, due_at, expires_at, max_attempts, at_most_once, created_at,
              status, attempts, claim_id, claimed_by, sent_at, finished_at, http_status, request_id, error)
    on signaling.outbox to :"role";
grant select on signaling.rollup, signaling.census, signaling.census_turn to :"role";
grant execute on function signaling.take_census to :"role";
grant execute on function signaling.slot_rate, signaling.present_rate, signaling.calls, signaling.peak_rate to :"role";
