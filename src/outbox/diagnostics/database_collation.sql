-- As collations.sql, for the default collation of the database. The column and the function exist since PostgreSQL 15.
select format('the default collation of database %I was %s and is %s: indexes may miss messages', datname, datcollversion,
              coalesce(present, 'of no known version')) as found,
       format('alter database %I refresh collation version', datname) as statement
from pg_database cross join lateral pg_database_collation_actual_version(oid) as present
where datname = current_database() and datcollversion <> coalesce(present, '')
