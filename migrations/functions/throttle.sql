-- Throttles an app's lane after a 429. Cuts the rate by a fifth, once for each burst of 429s. Gives out no slot for as long
-- as the API asks, or until resume(). Returns the new rate in slots a second, or null if this 429 cut nothing.
--
-- sent_at        when the attempt began
-- retry_after    how long the API asks to wait
--
-- Locks the lane's row.
-- Index: lane_pkey.
create or replace function signaling.throttle(app text, sent_at timestamptz, retry_after interval)
    returns double precision
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set enable_seqscan = off set jit = off
as $$
#variable_conflict use_column
declare
    -- A 429 belongs to the burst that caused the last cut if its attempt began less than this time after the cut, because
    -- its slot was given out before. Covers the horizon, not the lookahead of a distant worker.
    burst constant interval := interval '200 milliseconds';
    -- The rate climbs by a share of itself, so it must not become zero.
    least_per_s constant double precision := 0.5;
    lane signaling.lane;
    at timestamptz;
    rate double precision;
    is_cut boolean;
begin
    perform signaling.assert_session();
    perform signaling.assert_duration('retry_after', retry_after, may_be_zero => true);
    select * into lane from signaling.lane where app = throttle.app for no key update;
    if not found then
        return null;
    end if;
    at := clock_timestamp();
    is_cut := lane.throttled_at is null or throttle.sent_at > lane.throttled_at + burst;
    rate := signaling.present_rate(lane.rate_per_s, lane.rate_at, lane.limit_per_s, at) * case when is_cut then 0.8 else 1 end;
    rate := least(greatest(least_per_s, rate), signaling.slot_rate(lane.limit_per_s));
    if is_cut or at + retry_after > coalesce(lane.retry_after_until, at) then
        update signaling.lane
        set rate_per_s = rate, rate_at = at,
            retry_after_until = case when retry_after > interval '0' then greatest(retry_after_until, at + retry_after)
                                     else retry_after_until end,
            throttled_at = case when is_cut then at else throttled_at end
        where app = throttle.app;
    end if;
    return case when is_cut then rate end;
end
$$;
