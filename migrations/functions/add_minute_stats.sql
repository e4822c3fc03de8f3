-- Adds a worker's counters to signaling.minute_stats. The argument is an array with an object for each minute and app; its
-- keys are the columns of that table.
--
-- Locks the rows that it writes, in the order of their key, so that two workers can't deadlock.
create or replace function signaling.add_minute_stats(stats jsonb) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off
as $$
#variable_conflict use_column
begin
    perform signaling.assert_session();
    insert into signaling.minute_stats as kept
    select * from jsonb_populate_recordset(null::signaling.minute_stats, stats)
    order by minute, app
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
