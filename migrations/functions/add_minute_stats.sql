-- Adds what a worker has done to the stats of its minutes. The arrays hold one minute of one app at each place; histograms
-- are arrays written as text, because Postgres has no arrays of arrays of different lengths.
--
-- Locks the rows that it writes, in the order of their key, so that two workers never wait for each other.
create or replace function signaling.add_minute_stats(
    minutes timestamptz[], apps text[], message_sent bigint[], message_delivered bigint[], message_offline bigint[],
    failed bigint[], expired bigint[], unknown bigint[], calls_transient bigint[], calls_throttled bigint[],
    calls_rejected bigint[], calls_unauthorized bigint[], calls_ambiguous bigint[], slots_missed bigint[],
    call_time text[], queue_wait text[]
) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off
as $$
#variable_conflict use_column
begin
    perform signaling.assert_session();
    insert into signaling.minute_stats as kept (
        minute, app, message_sent, message_delivered, message_offline, failed, expired, unknown, calls_transient,
        calls_throttled, calls_rejected, calls_unauthorized, calls_ambiguous, slots_missed, call_time, queue_wait)
    select done.minute, done.app, done.c1, done.c2, done.c3, done.c4, done.c5, done.c6, done.c7, done.c8, done.c9, done.c10,
           done.c11, done.c12, done.call_time::bigint[], done.queue_wait::bigint[]
    from unnest(minutes, apps, message_sent, message_delivered, message_offline, failed, expired, unknown, calls_transient,
                calls_throttled, calls_rejected, calls_unauthorized, calls_ambiguous, slots_missed, call_time, queue_wait)
             as done (minute, app, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, call_time, queue_wait)
    order by done.minute, done.app
    on conflict (minute, app) do update
    set message_sent = kept.message_sent + excluded.message_sent,
        message_delivered = kept.message_delivered + excluded.message_delivered,
        message_offline = kept.message_offline + excluded.message_offline,
        failed = kept.failed + excluded.failed,
        expired = kept.expired + excluded.expired,
        unknown = kept.unknown + excluded.unknown,
        calls_transient = kept.calls_transient + excluded.calls_transient,
        calls_throttled = kept.calls_throttled + excluded.calls_throttled,
        calls_rejected = kept.calls_rejected + excluded.calls_rejected,
        calls_unauthorized = kept.calls_unauthorized + excluded.calls_unauthorized,
        calls_ambiguous = kept.calls_ambiguous + excluded.calls_ambiguous,
        slots_missed = kept.slots_missed + excluded.slots_missed,
        -- refresh_queue_counts() may have made the minute's row, with empty histograms.
        call_time = array(select coalesce(old, 0) + coalesce(new, 0)
                          from unnest(kept.call_time, excluded.call_time) with ordinality as bucket (old, new, place)
                          order by place),
        queue_wait = array(select coalesce(old, 0) + coalesce(new, 0)
                           from unnest(kept.queue_wait, excluded.queue_wait) with ordinality as bucket (old, new, place)
                           order by place);
end
$$;
