-- The calls of an app that started from one time up to another, as workers have recorded them.
--
-- Locks nothing.
-- Indexes: outbox_sent, attempt_sent.
create or replace function signaling.calls(app text, "from" timestamptz, "to" timestamptz)
    returns table (message_id bigint, sent_at timestamptz)
    language sql stable set search_path = pg_catalog, pg_temp set enable_bitmapscan = on
as $$
    select outbox.id, outbox.sent_at from signaling.outbox
    where outbox.app = $1 and outbox.sent_at >= $2 and outbox.sent_at < $3
    -- The last call of a message that did not end well stands in both.
    union
    select attempt.message_id, attempt.sent_at
    from signaling.attempt join signaling.outbox on outbox.id = attempt.message_id
    where outbox.app = $1 and attempt.sent_at >= $2 and attempt.sent_at < $3
$$;
