-- Makes sure that an app has a lane, and that its limit is the configured one, unless an operator has set another.
--
-- limit_per_s    calls a second that the API allows the app
--
-- Locks the lane's row, if it changes.
-- Index: lane_pkey.
create or replace function signaling.open_lane(app text, limit_per_s double precision) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    limits record;
begin
    perform signaling.assert_session();
    insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s)
    values (open_lane.app, open_lane.limit_per_s, open_lane.limit_per_s, signaling.slot_rate(open_lane.limit_per_s))
    on conflict (app) do update set configured_per_s = excluded.configured_per_s
    where lane.configured_per_s is distinct from excluded.configured_per_s;

    select limit_set_by is null and limit_per_s is distinct from configured_per_s as are_apart into limits
    from signaling.lane where app = open_lane.app;
    if limits.are_apart then
        perform signaling.set_limit(app, null);
    end if;
end
$$;
