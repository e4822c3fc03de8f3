-- Sets an app's limit, for running workers and for workers that start later. Returns true if that changes something.
--
-- calls_per_s    calls a second; null: the configured limit again
-- by             informational: `worker status` shows it
--
-- Locks the lane's row.
-- Index: lane_pkey.
create or replace function signaling.set_limit(app text, calls_per_s double precision, by text default session_user) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off
as $$
declare
    old signaling.lane;
    moment timestamptz;
    new_limit double precision;
begin
    perform signaling.refuse_unknown_app($1);
    select * into old from signaling.lane where lane.app = $1 for update;
    moment := clock_timestamp();
    new_limit := coalesce($2, old.configured_per_s);
    if new_limit = old.limit_per_s and ($2 is null) = (old.limit_set_by is null) then
        return false;
    end if;
    update signaling.lane
    set limit_per_s = new_limit,
        limit_set_by = case when $2 is not null then coalesce($3, session_user) end,
        limit_set_at = case when $2 is not null then moment end,
        -- A lane at its full rate gets the new full rate. A throttled lane keeps its rate, and climbs on.
        rate_per_s = case
            when signaling.present_rate(old.rate_per_s, old.rate_at, old.limit_per_s, moment)
                 >= signaling.slot_rate(old.limit_per_s)
            then signaling.slot_rate(new_limit)
            else signaling.present_rate(old.rate_per_s, old.rate_at, new_limit, moment) end,
        rate_at = moment
    where lane.app = $1;
    perform signaling.wake_workers($1);
    return true;
end
$$;
comment on function signaling.set_limit is
    'Sets an app''s limit of calls a second, fleet-wide; null: the configured limit. Returns true if that changes something.';
