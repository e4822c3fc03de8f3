-- Each app that has a lane or pending messages: the lane's row, and the messages as they were counted last.
select app, lanes.lane, coalesce(counted.pending, '{}') as pending
from (
    select app, to_jsonb(lane) || jsonb_build_object(
               'rate_per_s', signaling.present_rate(rate_per_s, rate_at, limit_per_s, clock_timestamp()),
               'told_to_wait', coalesce(retry_after_until > clock_timestamp(), false)) as lane
    from signaling.lane
) as lanes
full join (
    select app, to_jsonb(queue_counts) || jsonb_build_object(
               'oldest_s', case when oldest_at is not null then extract(epoch from greatest('0', counted_at - oldest_at)) end,
               'counted_ago_s', extract(epoch from clock_timestamp() - counted_at)) as pending
    from signaling.queue_counts cross join signaling.queue_counts_turn
) as counted using (app)
