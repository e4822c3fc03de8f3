-- Ends the hold of an app's lane after the API accepted, rejected or throttled its probe, and wakes the workers. Returns
-- false if `probe` is not the lane's probe.
--
-- Locks the lane's row.
-- Index: lane_pkey.
create or replace function signaling.release_hold(app text, probe uuid) returns boolean
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set enable_seqscan = off set jit = off
as $$
#variable_conflict use_column
begin
    perform signaling.assert_session();
    update signaling.lane
    set hold = null, hold_reason = null, hold_since = null, hold_until = null, hold_probes = 0, probe_claim_id = null,
        probe_target = null, released_at = clock_timestamp()
    where app = release_hold.app and probe_claim_id = probe;
    if not found then
        return false;
    end if;
    perform signaling.wake_workers(app);
    return true;
end
$$;
