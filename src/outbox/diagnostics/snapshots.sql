-- Transactions that have been open for long. Such a transaction may still see rows that other sessions have deleted or updated
-- since, so vacuum keeps these dead rows and their index entries. A role may not see the age of another role's transaction, so
-- the number of transactions since then counts instead. A transaction manager ends a prepared transaction at once.
select format('%s has been open for %s', holder,
              coalesce(date_trunc('second', open_for)::text, transactions_since || ' transactions')) as found
from (select format('session %s of %s%s%s', pid, usename,
                    case when application_name <> '' then format(' (%s)', application_name) end,
                    case when state is not null then ', ' || state end) as holder,
             clock_timestamp() - xact_start as open_for, interval '5 minutes' as longest,
             greatest(age(backend_xmin), age(backend_xid)) as transactions_since
      from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid()
        and (backend_xmin is not null or backend_xid is not null)
        and coalesce(backend_type, '') <> 'autovacuum worker'
      union all
      select format('prepared transaction %L of %s', gid, owner), clock_timestamp() - prepared, interval '10 seconds',
             age(transaction)
      from pg_prepared_xacts where database = current_database()) as open
where coalesce(open_for > longest, transactions_since > 1000000)
order by open_for desc nulls last, transactions_since desc
limit 3
