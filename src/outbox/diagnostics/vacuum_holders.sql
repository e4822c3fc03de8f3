-- Replication slots and standbys that keep dead rows from being cleaned up, or the server's log from being removed. Everybody
-- may read these columns.
select format('replication slot %L', slot_name) as holder, coalesce(active, false) as is_active,
       age(xmin)::bigint as row_transactions, age(catalog_xmin)::bigint as catalog_transactions, wal_status
from pg_replication_slots
where database is null or database = current_database()
union all
select format('standby %s of %s (hot_standby_feedback)', coalesce(nullif(application_name, ''), pid::text), usename), true,
       age(backend_xmin)::bigint, null, null
from pg_stat_replication where backend_xmin is not null
order by is_active, row_transactions desc nulls last, holder
limit 10
