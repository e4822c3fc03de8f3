-- The limit on connections that leaves the least to this worker, or to all live workers at once. Each worker uses up to $1
-- connections. The connection of this query counts as free.
select name, available, most, alive_workers
from (select count(distinct worker_id) as alive_workers from signaling.fleet where is_alive) as fleet
     cross join (select count(*) as taken,
             count(*) filter (where usename = session_user) as of_role,
             count(*) filter (where datname = current_database()) as of_database
      from pg_stat_activity
      -- Every role can count the connections of other roles, but not read their statements.
      where datid is not null and coalesce(backend_type, 'client backend') = 'client backend') as connections
     cross join lateral (
         select 'max_connections' as name, setting.most, setting.most - taken + 1 as available
         from (select current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
                      - coalesce(current_setting('reserved_connections', true), '0')::bigint as most) as setting
         union all
         select 'the role''s connection limit', rolconnlimit, rolconnlimit - of_role + 1
         from pg_roles where rolname = session_user and rolconnlimit >= 0
         union all
         select 'the database''s connection limit', datconnlimit, datconnlimit - of_database + 1
         from pg_database where datname = current_database() and datconnlimit >= 0) as limits
order by least(available - $1::bigint, most - alive_workers * $1::bigint)
limit 1
