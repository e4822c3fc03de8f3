-- Ends messages of some apps whose time is over while no worker claims them: they wait for a later time, or in a lane that
-- is held or paused. At most 1,000 of each app.
--
-- over_before    leases and expiries that ended after this do not count as over yet
--
-- Returns a row for each app that had such messages.
-- Locks the messages that it ends; passes over messages that are locked.
-- Index: outbox_expiring.
create or replace function signaling.expire(apps text[], over_before timestamptz)
    returns table (app text, expired integer, unknown integer)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on set jit = off
as $$
#variable_conflict use_column
declare
    at timestamptz := least(clock_timestamp(), over_before);
    overdue tid[];
begin
    perform signaling.assert_session();
    -- One look for all apps first: nearly always there is nothing to end.
    for app in
        select served.app from unnest(apps) as served (app)
        where exists (select from signaling.outbox
                      where outbox.app = served.app and status = 'pending' and expires_at <= at)
    loop
        overdue := array(
            select ctid from signaling.outbox
            where outbox.app = expire.app and status = 'pending' and expires_at <= at
              and (claim_id is null or due_at <= at)
            order by expires_at limit 1000 for no key update skip locked);
        select ended.expired, ended.unknown into expired, unknown from signaling.end_overdue(overdue, at) as ended;
        return next;
    end loop;
end
$$;
