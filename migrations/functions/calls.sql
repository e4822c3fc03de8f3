-- The recorded calls of an app that started between two times.
--
-- Locks nothing.
-- Indexes: outbox_sent, attempt_sent.
create or replace function signaling.calls(app text, "from" timestamptz, "to" timestamptz)
    returns table (message_id bigint, sent_at timestamptz)
    language sql stable set search_path = pg_catalog, pg_temp set enable_bitmapscan = on
as $$
    select outbox.id, outbox.sent_at from signaling.outbox
    where outbox.app = $1 and outbox.sent_at >= $2 and outbox.sent_at < $3
    -- A message's last call stands in both tables if it failed.
    union
    select attempt.message_id, attempt.sent_at
    from signaling.attempt join signaling.outbox on outbox.id = attempt.message_id
    where outbox.app = $1 and attempt.sent_at >= $2 and attempt.sent_at < $3
$$;
