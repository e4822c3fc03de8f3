-- After a 429. $1 app, $2 start of the call, $3 what the API asks to wait in µs, $4 how long a burst lasts in µs.
with
lane as materialized (
    select * from signaling.lane where app = $1 for update
),
now as materialized (
    select lane.*, clock_timestamp() as at,
           throttled_at is null or $2 > throttled_at + $4::bigint * interval '1 microsecond' as is_cut
    from lane
),
next as materialized (
    select at, is_cut,
           -- Never so slow that the way back has no beginning.
           greatest(0.5, signaling.present_rate(rate_per_s, rate_at, limit_per_s, at)
                         * case when is_cut then 0.8 else 1 end) as rate,
           greatest(next_slot_at, at + $3::bigint * interval '1 microsecond') as slot_at
    from now
)
update signaling.lane
set rate_per_s = least(next.rate, signaling.slot_rate(lane.limit_per_s)),
    rate_at = next.at,
    throttled_at = case when next.is_cut then next.at else lane.throttled_at end,
    next_slot_at = next.slot_at
from next
where lane.app = $1 and (next.is_cut or next.slot_at > lane.next_slot_at)
returning case when next.is_cut then lane.rate_per_s end
