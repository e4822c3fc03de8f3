-- At most $1 workers, live ones first, each with the apps that it serves.
select name, host, version, environment, is_alive, started_at, seen_at,
       extract(epoch from greatest(clock_timestamp() - seen_at, '0'))::float8 as seen_ago_s,
       jsonb_agg(jsonb_build_object('app', app, 'accepted', accepted, 'failed', failed, 'is_doubting', is_doubting,
                                    'stepped_aside_at', stepped_aside_at, 'stepped_aside_reason', stepped_aside_reason)
                 order by app collate "C") as apps
from signaling.fleet
group by worker_id, name, host, version, environment, is_alive, started_at, seen_at
order by is_alive desc, case when not is_alive then seen_at end desc, name collate "C", started_at
limit $1
