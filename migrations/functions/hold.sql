-- Holds an app's lane: the lane sends nothing but a probe every few seconds.
--
-- kind           'unauthorized' or 'unavailable'
-- probe          the claim whose probe has failed; null if other attempts have failed. Only a failed probe makes the pause
--                longer, because many attempts fail together at first. A probe counts only while it is the lane's probe.
--
-- Returns 'held' if the lane was not held before; 'extended' after a failed probe; 'other' if the lane was held already, or
-- another claim has the probe; 'too_soon' if the last hold ended less than ten seconds ago, because a lane must not change
-- between held and sending all the time.
-- Locks the lane's row.
-- Index: lane_pkey.
create or replace function signaling.hold(app text, kind text, reason text, probe uuid) returns text
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set enable_seqscan = off set jit = off
as $$
#variable_conflict use_column
declare
    first_probe_delay constant interval := interval '1 second';
    longest_probe_delay constant interval := interval '4 seconds';
    time_between_holds constant interval := interval '10 seconds';
    at timestamptz := clock_timestamp();
    lane signaling.lane;
begin
    perform signaling.assert_session();
    select * into lane from signaling.lane where app = hold.app for no key update;
    if not found or (probe is null and lane.hold is not null)
       or (probe is not null and lane.probe_claim_id is distinct from probe) then
        return 'other';
    end if;
    -- A released_at in the future comes from before the clock was set back.
    if lane.hold is null and lane.released_at between at - time_between_holds and at then
        return 'too_soon';
    end if;
    update signaling.lane
    set hold = kind, hold_reason = reason,
        hold_since = coalesce(hold_since, at),
        hold_until = at + least(first_probe_delay * power(2, least(hold_probes, 20)), longest_probe_delay),
        hold_probes = hold_probes + 1,
        probe_claim_id = null
    where app = hold.app;
    return case when lane.hold is null then 'held' else 'extended' end;
end
$$;
