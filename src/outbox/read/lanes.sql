-- Each app that has a lane or pending messages, or the app $1: the lane's row with the workers that serve the app, and the
-- messages as they were counted last.
select app, lanes.lane, coalesce(counted.pending, '{}') as pending
from (
    select app, to_jsonb(lane) || jsonb_build_object(
               'rate_per_s', signaling.present_rate(rate_per_s, rate_at, limit_per_s, clock_timestamp()),
               'obstacles', coalesce((
                   select jsonb_agg(jsonb_build_object('kind', kind, 'sentence', sentence) order by rank)
                   from signaling.obstacle where obstacle.app = lane.app), '[]'),
               'workers', coalesce(serving.workers, '{}')) as lane
    from signaling.lane left join (
        select app, jsonb_build_object(
                   'alive', count(*) filter (where is_of_environment),
                   'refusing', coalesce(jsonb_agg(distinct coalesce(environment, '(none)'))
                                        filter (where not is_of_environment), '[]'),
                   'aside', count(*) filter (where stepped_aside_at is not null)) as workers
        from (select fleet.*, fleet.environment is not distinct from lane.environment as is_of_environment
              from signaling.fleet join signaling.lane using (app) where is_alive) as fleet
        group by app
    ) as serving using (app)
) as lanes
full join (
    select app, to_jsonb(queue_counts) || jsonb_build_object(
               'oldest_s', case when oldest_at is not null then extract(epoch from greatest('0', counted_at - oldest_at)) end,
               'counted_ago_s', extract(epoch from clock_timestamp() - counted_at),
               'refused', (select count(*) from (
                               select from signaling.refused
                               where refused.app = queue_counts.app and retry_at > clock_timestamp() limit 10000) as noted)) as pending
    from signaling.queue_counts cross join signaling.queue_counts_turn
) as counted using (app)
where $1::text is null or app = $1
