-- Replication slots and standbys for which Postgres keeps dead rows or the WAL. Every role may read these columns.
select format('%s %s', holder, problem) as found
from (select holder, is_active, oldest,
             case when wal_status in ('extended', 'unreserved', 'lost') then 'has WAL that is ' || wal_status
                  when not is_active then 'is inactive, and keeps WAL or dead rows'
                  when oldest > 1000000 then format('keeps rows for %s transactions', oldest) end as problem
      from (select format('replication slot %L', slot_name) as holder, coalesce(active, false) as is_active,
                   greatest(age(xmin), age(catalog_xmin)) as oldest, wal_status
            from pg_replication_slots
            where database is null or database = current_database()
            union all
            select format('standby %s of %s (hot_standby_feedback)', coalesce(nullif(application_name, ''), pid::text), usename),
                   true, age(backend_xmin), null
            from pg_stat_replication where backend_xmin is not null) as holders) as judged
where problem is not null
order by is_active, oldest desc nulls last, holder
limit 10
