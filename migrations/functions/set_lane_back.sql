-- Brings the times of an app's lane back after the clock of the database was set back, so that no slot, hold or wait of the
-- API lasts longer than it did before. The slots that are given out stay ahead of the next ones. Claims try messages again
-- that the database refused to change, because the times of these tries lie ahead as well.
--
-- The caller has locked the lane's row.
-- Indexes: lane_pkey, refused_pkey.
create or replace function signaling.set_lane_back(app text, set_back_by interval) returns void
    language sql
as $$
    update signaling.lane
    set next_slot_at = next_slot_at - $2, rate_at = rate_at - $2, throttled_at = throttled_at - $2,
        retry_after_until = retry_after_until - $2, hold_until = hold_until - $2, released_at = released_at - $2
    where lane.app = $1;
    delete from signaling.refused where refused.app = $1
$$;
