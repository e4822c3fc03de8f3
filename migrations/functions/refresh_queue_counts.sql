-- Counts the pending messages into signaling.queue_counts, so that status queries read a few rows and not the outbox. Skips
-- the count if the last one is younger than `stale_after`, or than fifty times its own duration: counting takes at most 2 %
-- of one connection's time. Skips the count, too, while another session counts. Returns true if it counted.
--
-- ended_before    a time that has certainly passed: a clock that was set ahead must not make minutes old
--
-- Locks the row of signaling.queue_counts_turn.
-- Indexes: outbox_first_attempts, outbox_retries. It reads no finished message.
create or replace function signaling.refresh_queue_counts(
    stale_after interval default '0', ended_before timestamptz default 'infinity'
) returns boolean
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp set row_security = off
    set enable_seqscan = off set enable_bitmapscan = off set jit = off set max_parallel_workers_per_gather = 0
as $$
declare
    began timestamptz := clock_timestamp();
begin
    perform signaling.assert_duration('stale_after', stale_after, may_be_zero => true);
    -- A truncate may have deleted the row: without it, no session would ever count again.
    if not exists (select from signaling.queue_counts_turn) then
        insert into signaling.queue_counts_turn default values on conflict do nothing;
    end if;
    perform from signaling.queue_counts_turn
    -- The clock may have been set back since the last count.
    where is_the_only_row and (counted_at + greatest(stale_after, took * 50) <= began or counted_at > began)
    for update skip locked;
    if not found then
        return false;
    end if;
    -- After a crash of the server, the next call counts again.
    perform set_config('synchronous_commit', 'off', true);

    with firsts as (
        -- An index-only scan.
        select app, count(*) filter (where due_at <= began) as queued, count(*) filter (where due_at > began) as scheduled
        from signaling.outbox
        where status = 'pending' and sent_at is null and claim_id is null
        group by app
    ), waiting as (
        -- A message whose due time lay in the past at its insert waits since its insert. The first messages in the order
        -- of claims have waited longest, or about as long.
        select app, (select min(greatest(due_at, created_at)) from (
                        select due_at, created_at from signaling.outbox
                        where outbox.app = firsts.app and status = 'pending' and sent_at is null and claim_id is null
                          and due_at <= began
                        order by due_at, id limit 100) as first) as oldest_at
        from firsts where queued > 0
    ), retries as (
        select app, count(*) filter (where claim_id is not null and due_at > began) as sending,
               count(*) filter (where claim_id is null or due_at <= began) as retrying,
               min(case when attempts + uncharged > 0 then coalesce(failing_since, created_at)
                        -- No attempt has failed: an operator made it due again, or its worker was lost. A first call that
                        -- is under way has no wait.
                        when claim_id is null or due_at <= began then greatest(due_at, created_at) end) as oldest_at
        from signaling.outbox
        where status = 'pending' and (sent_at is not null or claim_id is not null)
        group by app
    ), pending as (
        select app, queued, scheduled, retrying, sending, least(waiting.oldest_at, retries.oldest_at) as oldest_at
        from firsts left join waiting using (app) full join retries using (app)
    ), counted as (
        -- By the lanes, because an app without pending messages needs a row of zeros.
        select app, coalesce(queued, 0) as queued, coalesce(scheduled, 0) as scheduled, coalesce(retrying, 0) as retrying,
               coalesce(sending, 0) as sending, oldest_at
        from signaling.lane left join pending using (app)
        -- Messages of apps without a lane may be a producer's mistake: at most 100 such apps get a row.
        union all
        (select app, coalesce(queued, 0), coalesce(scheduled, 0), coalesce(retrying, 0), coalesce(sending, 0),
                oldest_at
         from pending
         where not exists (select from signaling.lane where lane.app = pending.app)
         order by app
         limit 100)
    ), gone as (
        delete from signaling.queue_counts where app <> all (select app from counted)
    ), written as (
        insert into signaling.queue_counts (app, queued, scheduled, retrying, sending, oldest_at)
        select app, queued, scheduled, retrying, sending, oldest_at from counted order by app
        on conflict (app) do update
        set queued = excluded.queued, scheduled = excluded.scheduled, retrying = excluded.retrying,
            sending = excluded.sending, oldest_at = excluded.oldest_at
        where (queue_counts.queued, queue_counts.scheduled, queue_counts.retrying, queue_counts.sending, queue_counts.oldest_at)
            is distinct from (excluded.queued, excluded.scheduled, excluded.retrying, excluded.sending, excluded.oldest_at)
    )
    insert into signaling.minute_stats (minute, app, backlog)
    select date_trunc('minute', began), app, queued + retrying from counted
    where exists (select from signaling.lane where lane.app = counted.app)
    order by app
    on conflict (minute, app) do update set backlog = excluded.backlog where minute_stats.backlog is distinct from excluded.backlog;

    delete from signaling.minute_stats where minute < least(began, ended_before) - interval '8 days';
    update signaling.queue_counts_turn set counted_at = began, took = clock_timestamp() - began where is_the_only_row;
    return true;
end
$$;
