-- Ends messages of some apps whose time is over while no worker claims them: they wait for a later time, or in a lane that
-- is held or paused. At most 1,000 of each app.
--
-- over_before    leases and expiries that ended after this do not count as over yet
-- isolates       after a call that did not end in time: ends each message by itself, and lists those in signaling.refused
--                that a function of the application keeps waiting
--
-- Returns a row for each app that had such messages. `refused` counts messages that a trigger or a constraint keeps from
-- being ended; they do not keep the others from it.
-- Locks the messages that it ends; passes over messages that are locked.
-- Indexes: refused_pkey, outbox_expiring.
create or replace function signaling.expire(apps text[], over_before timestamptz, isolates boolean default false)
    returns table (app text, expired integer, unknown integer, refused integer)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on set jit = off
as $$
#variable_conflict use_column
declare
    at timestamptz := least(clock_timestamp(), over_before);
    has_refused constant boolean := exists (select from signaling.refused where refused.app = any (apps));
    overdue tid[];
    stops_at timestamptz;
    context text;
begin
    perform signaling.assert_session();
    if isolates then
        stops_at := clock_timestamp() + interval '500 milliseconds';
    end if;
    -- One look for all apps first: nearly always there is nothing to end.
    for app in
        select served.app from unnest(apps) as served (app)
        where exists (select from signaling.outbox
                      where outbox.app = served.app and status = 'pending' and expires_at <= at
                        and case when has_refused then not exists (
                                select from signaling.refused
                                where refused.app = served.app and message_id = outbox.id and retry_at > at) else true end)
    loop
        overdue := array(
            select ctid from signaling.outbox
            where outbox.app = expire.app and status = 'pending' and expires_at <= at
              and (claim_id is null or due_at <= at)
              and case when has_refused then not exists (
                      select from signaling.refused
                      where refused.app = expire.app and message_id = outbox.id and retry_at > at) else true end
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
