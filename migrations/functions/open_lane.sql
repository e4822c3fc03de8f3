-- Makes an app's lane if there is none, sets its limit to the configured one unless an operator has set another, and checks
-- that the lane belongs to the worker's environment.
--
-- limit_per_s    calls a second that the API allows the app
-- environment    the worker's environment, if one is set
-- is_missing     the lane existed, and its row was deleted
--
-- Returns a row with the result: 'open' if the lane existed; 'made'; 'named' if the lane belonged to no environment and
-- belongs to this one from now on; 'refused' if the lane belongs to another environment, with that environment and the
-- number of pending messages. A refused lane is not changed, because a copy of a database has the messages of its source,
-- and the copy's workers would send them a second time.
-- Locks the lane's row, if it changes.
-- Index: lane_pkey.
create or replace function signaling.open_lane(
    app text, limit_per_s double precision, environment text default null, is_missing boolean default false,
    out result text, out lane_environment text, out pending bigint
)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set enable_seqscan = off set jit = off
as $$
#variable_conflict use_column
declare
    at constant timestamptz := clock_timestamp();
    lane signaling.lane;
begin
    perform signaling.assert_session();
    -- Running workers may still have slots of a deleted lane, less than a second ahead. The first slot of the new lane
    -- comes after those, or both together would exceed the limit.
    insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s, environment, next_slot_at)
    select open_lane.app, open_lane.limit_per_s, open_lane.limit_per_s, signaling.slot_rate(open_lane.limit_per_s),
           open_lane.environment,
           case when is_missing or exists (select from signaling.worker_liveness
                                          where is_alive and open_lane.app = any (apps))
                then at + interval '1 second' else 'epoch' end
    on conflict (app) do nothing;
    result := case when found then 'made' else 'open' end;

    select * into lane from signaling.lane where app = open_lane.app;
    if lane.environment is null and open_lane.environment is not null then
        update signaling.lane set environment = open_lane.environment where app = open_lane.app and environment is null;
        result := case when found then 'named' else 'open' end;
        select * into lane from signaling.lane where app = open_lane.app;
    end if;
    lane_environment := lane.environment;
    if lane.environment is distinct from open_lane.environment then
        result := 'refused';
        pending := signaling.count_pending(app);
        return;
    end if;

    if lane.configured_per_s is distinct from open_lane.limit_per_s then
        update signaling.lane set configured_per_s = open_lane.limit_per_s where app = open_lane.app;
    end if;
    if lane.limit_set_by is null and lane.limit_per_s is distinct from open_lane.limit_per_s then
        perform signaling.set_limit(app, null);
    end if;
end
$$;
