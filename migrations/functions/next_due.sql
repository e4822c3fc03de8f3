-- Returns when the next messages of some apps are due. Claims nothing.
--
-- apps           the apps; the scan positions stand in the same order: see claim(). -infinity: from the beginning
-- horizon        as for claim()
-- poll_interval  the result includes a retry only if the retry is due within this time
-- environment    the worker's environment: see claim()
-- renews_wakeup  inserts that notify the workers of these apps do so for another minute: see want_wakeup()
--
-- Returns a row for each app that has a lane: `first` and `retry` are the (due_at, id) of the next message of each kind.
-- Locks the wakeup rows that it renews.
-- Indexes: lane_newest, refused_pkey, outbox_retries, outbox_first_attempts, wakeup_pkey.
create or replace function signaling.next_due(
    apps text[], first_after_at timestamptz[], first_after_id bigint[], retry_after_at timestamptz[],
    retry_after_id bigint[], horizon interval, poll_interval interval, renews_wakeup boolean default false,
    environment text default null
) returns table (app text, due jsonb)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on set jit = off
as $$
#variable_conflict use_column
declare
    now_at constant timestamptz := clock_timestamp();
    has_refused constant boolean := exists (select from signaling.refused where refused.app = any (apps));
begin
    perform signaling.assert_session();
    perform signaling.assert_duration('horizon', horizon);
    perform signaling.assert_duration('poll_interval', poll_interval, may_be_zero => true);
    if renews_wakeup then
        -- One order and no wait for locks: two workers can't deadlock.
        with ending as (
            select app from signaling.wakeup
            where app = any (apps) and wanted_until > now_at and wanted_until < now_at + interval '45 seconds'
            order by app for no key update skip locked
        )
        update signaling.wakeup set wanted_until = now_at + interval '60 seconds' from ending where wakeup.app = ending.app;
    end if;
    return query
    select asked.app, jsonb_build_object(
               'at', now_at,
               'first', case when first.id is not null then jsonb_build_array(first.due_at, first.id) end,
               'retry', case when retry.id is not null then jsonb_build_array(retry.due_at, retry.id) end,
               'hold', case when held.kind is not null then jsonb_build_object('kind', held.kind, 'until', held.until) end)
    from unnest(apps, first_after_at, first_after_id, retry_after_at, retry_after_id)
             as asked (app, first_after_at, first_after_id, retry_after_at, retry_after_id)
    cross join lateral (
        select * from signaling.lane where lane.app collate "C" = asked.app order by generation desc limit 1
    ) as lane
    cross join lateral (
        select case when lane.environment is distinct from next_due.environment then 'other_environment'
                    when lane.paused_at is not null then 'paused'
                    else lane.hold end as kind,
               case when lane.environment is distinct from next_due.environment or lane.paused_at is not null
                    then now_at + interval '1 hour'
                    else greatest(lane.hold_until, lane.next_slot_at - horizon, lane.retry_after_until - horizon) end as until
    ) as held
    left join lateral (
        select due_at, id from signaling.outbox
        where outbox.app = asked.app and status = 'pending' and sent_at is null and claim_id is null
          and (due_at, id) > (asked.first_after_at, asked.first_after_id)
          and (not has_refused or not signaling.is_refused(outbox.app, id, now_at))
        order by due_at, id limit 1
    ) as first on true
    left join lateral (
        select due_at, id from signaling.outbox
        where outbox.app = asked.app and status = 'pending' and (sent_at is not null or claim_id is not null)
          and (due_at, id) > (asked.retry_after_at, asked.retry_after_id) and due_at <= now_at + poll_interval
          and (not has_refused or not signaling.is_refused(outbox.app, id, now_at))
        order by due_at, id limit 1
    ) as retry on true;
end
$$;
