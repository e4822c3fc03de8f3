-- Which sessions are in the way: those that the process $1 waits for and those that hold the advisory lock $2. As much of
-- each as helps to find it, and never what it runs; of other users' sessions that is little, unless one may see them.
select string_agg(case when pid = 0 then 'a prepared transaction (see pg_prepared_xacts)'
                       else 'process ' || pid || coalesce(' (' || nullif(known, '') || ')', '') end, '; ')
from (
    select holder.pid, concat_ws(', ', case when backend_type = 'autovacuum worker' then 'autovacuum, which ends by itself' end,
               'user ' || to_json(usename::text), 'application ' || to_json(nullif(application_name, '')), state,
               'its transaction began at ' || to_char(xact_start at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) as known
    from (
        select unnest(pg_blocking_pids($1)) as pid
        union
        select pid from pg_locks
        where locktype = 'advisory' and granted and objsubid = 1 and classid::bigint << 32 | objid::bigint = $2
          and database = (select oid from pg_database where datname = current_database())
    ) as holder left join pg_stat_activity as activity on activity.pid = holder.pid
    order by xact_start, holder.pid limit 5
) as holders
