-- A producer: inserts messages, reads them and what becomes of them, cancels them.
grant usage on schema signaling to :"role";
grant insert (app, sender, destination, channel_name, payload, wait_for_ack, enable_offline_messaging,
              enable_historical_messaging, due_at, expires_at, max_attempts, at_most_once, dedupe_key, traceparent)
    on signaling.outbox to :"role";
grant select on signaling.outbox, signaling.attempt, signaling.delivery, signaling.delivery_status to :"role";
grant execute on function signaling.cancel to :"role";
