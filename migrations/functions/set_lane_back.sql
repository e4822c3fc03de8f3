-- Moves the times of an app's lane back after the database's clock was set back, so that no slot, hold or Retry-After lasts
-- longer than before. Empties the app's list of refused messages, so that claims try them again. New slots still come
-- after all slots that were given out.
--
-- The caller has locked the lane's row.
-- Index: lane_pkey.
create or replace function signaling.set_lane_back(app text, set_back_by interval) returns void
    language sql
as $$
    update signaling.lane
    set next_slot_at = next_slot_at - $2, rate_at = rate_at - $2, throttled_at = throttled_at - $2,
        retry_after_until = retry_after_until - $2, hold_until = hold_until - $2, released_at = released_at - $2
    where lane.app = $1;
    delete from signaling.refused where refused.app = $1
$$;
