-- Holds an app's lane: it sends nothing but a probe every few seconds. Says whether that is news.
--
-- kind           'unauthorized' or 'unavailable'
-- probe          the claim whose probe has failed; null if other attempts did. A failed probe makes the pause longer, the
--                many attempts that fail together at first do not. A probe counts only while it is the lane's.
--
-- Locks the lane's row.
-- Index: lane_pkey.
create or replace function signaling.hold(app text, kind text, reason text, probe uuid) returns boolean
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    first_pause constant interval := interval '1 second';
    longest_pause constant interval := interval '4 seconds';
    at timestamptz := clock_timestamp();
    probes integer;
begin
    perform signaling.assert_session();
    update signaling.lane
    set hold = kind, hold_reason = reason,
        hold_since = coalesce(hold_since, at),
        hold_until = at + least(first_pause * power(2, least(hold_probes, 20)), longest_pause),
        hold_probes = hold_probes + 1,
        probe_claim_id = null
    where app = hold.app and case when probe is null then hold is null else probe_claim_id = probe end
    returning hold_probes into probes;
    return coalesce(probes = 1, false);
end
$$;
