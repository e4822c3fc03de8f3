-- Ends messages of some apps that expire while no worker claims them: the messages wait for a later time, or their lane is
-- held or paused. At most 1,000 of each app.
--
-- ended_before   leases and expiries that ended after this do not count as over yet
-- one_by_one     after a call that timed out: ends each message on its own, and lists a message in signaling.refused if a
--                function of the application keeps it waiting
--
-- Returns a row for each app that had such messages. `refused` counts messages that the database refuses to end; the other
-- messages end all the same.
-- Locks the messages that it ends; skips messages that are locked.
-- Indexes: refused_pkey, outbox_expiring.
create or replace function signaling.expire(apps text[], ended_before timestamptz, one_by_one boolean default false)
    returns table (app text, expired integer, unknown integer, refused integer)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on set jit = off
as $$
#variable_conflict use_column
declare
    at timestamptz := least(clock_timestamp(), ended_before);
    has_refused constant boolean := exists (select from signaling.refused where refused.app = any (apps));
    overdue tid[];
    stops_at timestamptz;
    context text;
begin
    perform signaling.assert_session();
    if one_by_one then
        stops_at := clock_timestamp() + interval '500 milliseconds';
    end if;
    -- One statement for all apps first, because there is nearly always nothing to end.
    for app in
        select served.app from unnest(apps) as served (app)
        where exists (select from signaling.outbox
                      where outbox.app = served.app and status = 'pending' and expires_at <= at
                        and (not has_refused or not signaling.is_refused(outbox.app, id, at)))
    loop
        overdue := array(
            select ctid from signaling.outbox
            where outbox.app = expire.app and status = 'pending' and expires_at <= at
              and (claim_id is null or due_at <= at)
              and (not has_refused or not signaling.is_refused(outbox.app, id, at))
            order by expires_at limit 1000 for no key update skip locked);
        begin
            select ended.expired, ended.unknown, ended.refused into expired, unknown, refused
            from signaling.end_overdue(overdue, at, stops_at) as ended;
            set constraints all immediate;
        exception when query_canceled or assert_failure or others then
            get stacked diagnostics context = pg_exception_context;
            if not signaling.is_refusal(sqlstate, context) then
                raise;
            end if;
            select ended.expired, ended.unknown, ended.refused into expired, unknown, refused
            from signaling.end_overdue(overdue, at, clock_timestamp() + interval '500 milliseconds') as ended;
        end;
        return next;
        exit when clock_timestamp() >= stops_at;
    end loop;
end
$$;
