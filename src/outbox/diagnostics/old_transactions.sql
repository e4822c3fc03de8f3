-- Transactions that may still see what has been deleted or updated since: dead rows of this database stay, and the
-- index entries that lead to them.
select holder, age_s, transactions_since, is_prepared
from (select format('session %s of %s%s%s', pid, usename,
                    case when application_name <> '' then format(' (%s)', application_name) end,
                    case when state is not null then ', ' || state end) as holder,
             extract(epoch from clock_timestamp() - xact_start)::float8 as age_s,
             greatest(age(backend_xmin), age(backend_xid))::bigint as transactions_since,
             false as is_prepared
      from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid()
        and (backend_xmin is not null or backend_xid is not null)
        and coalesce(backend_type, '') <> 'autovacuum worker'
      union all
      select format('prepared transaction %L of %s', gid, owner),
             extract(epoch from clock_timestamp() - prepared)::float8, age(transaction)::bigint, true
      from pg_prepared_xacts where database = current_database()) as open
order by age_s desc nulls last, transactions_since desc
limit 3
