select format('the default collation of database %I', datname) as subject, datcollversion as built_with,
       pg_database_collation_actual_version(oid) as found,
       format('alter database %I refresh collation version', datname) as refresh
from pg_database
where datname = current_database() and datcollversion is not null
  and datcollversion is distinct from pg_database_collation_actual_version(oid)
