-- Gives out a slot of an app for a call that belongs to no message, so that such calls count against the app's budget, too.
--
-- call_id        a fresh id. A held lane makes one call at a time: this call is its probe until release(app, call_id)
-- lease          how long the call may take
-- horizon        the slot lies at most twice so far ahead, because workers with a backlog take all slots within the horizon
--
-- Returns no row if the app has no lane, else the slot or a refusal: 'paused', 'retry_after', 'busy', 'held'.
-- Locks the lane's row.
-- Index: lane_pkey.
create or replace function signaling.reserve_slot(app text, call_id uuid, lease interval, horizon interval)
    returns table (at timestamptz, slot_at timestamptz, refusal text, is_probe boolean)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set enable_seqscan = off set jit = off
as $$
#variable_conflict use_column
declare
    -- The result reaches the caller within this time.
    lookahead constant interval := interval '250 milliseconds';
    lane signaling.lane;
    rate double precision;
begin
    perform signaling.assert_session();
    perform signaling.assert_duration('lease', lease);
    perform signaling.assert_duration('horizon', horizon);
    select * into lane from signaling.lane where app = reserve_slot.app for no key update;
    if not found then
        return;
    end if;
    at := clock_timestamp();
    slot_at := greatest(lane.next_slot_at, at + lookahead);
    rate := signaling.present_rate(lane.rate_per_s, lane.rate_at, lane.limit_per_s, at);
    is_probe := lane.hold is not null;
    refusal := case when lane.paused_at is not null then 'paused'
                    when lane.retry_after_until > at + lookahead then 'retry_after'
                    when lane.next_slot_at > at + 2 * horizon then 'busy'
                    when lane.hold is not null and lane.hold_until > at then 'held' end;
    if refusal is null then
        update signaling.lane
        set next_slot_at = slot_at + interval '1 second' / rate, rate_per_s = rate, rate_at = reserve_slot.at,
            hold_until = case when hold is not null then reserve_slot.at + lease end,
            probe_claim_id = case when hold is not null then call_id end
        where app = reserve_slot.app;
    end if;
    return next;
end
$$;
