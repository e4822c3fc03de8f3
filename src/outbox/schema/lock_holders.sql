-- The sessions that hold the advisory lock $1. If $1 is null, the sessions that hold a lock on a relation of the schema, in a
-- transaction older than 400 ms. Never shows a statement, which may have a payload. A role sees little of other roles' sessions.
select string_agg(case when pid is null then 'a prepared transaction (see pg_prepared_xacts)'
                       else 'process ' || pid || coalesce(' (' || nullif(known, '') || ')', '') end, '; ')
from (
    select holder.pid, concat_ws(', ', case when backend_type = 'autovacuum worker' then 'autovacuum, which ends by itself' end,
               'user ' || to_json(usename::text), 'application ' || to_json(nullif(application_name, '')), state,
               'its transaction began at ' || to_char(xact_start at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) as known
    from (
        select distinct pid from pg_locks
        where granted and pid is distinct from pg_backend_pid()
          and database = (select oid from pg_database where datname = current_database())
          and case when $1 is null
              then relation in (select oid from pg_class where relnamespace = to_regnamespace('signaling'))
              else locktype = 'advisory' and objsubid = 1 and (classid::bigint << 32 | objid::bigint) = $1 end
    ) as holder left join pg_stat_activity as activity on activity.pid = holder.pid
    where $1 is not null or xact_start is null or xact_start < clock_timestamp() - interval '400 ms'
    order by xact_start, holder.pid limit 5
) as holders
