-- Moves the times of an app's lane back after the database's clock was set back. Otherwise slots, holds and Retry-After waits
-- would last longer by the length of the step. Slots that workers already have stay before the next ones. Also forgets
-- refused messages, because their retry_at lies too far ahead, too.
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
