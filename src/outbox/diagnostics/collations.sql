-- Collations of the schema's indexes whose version differs from that with which the indexes were built. `datcollversion` and
-- its function came with PostgreSQL 15.
select format('collation %I.%I', nspname, collname) as subject, collversion as built_with,
       pg_collation_actual_version(pg_collation.oid) as found,
       format('alter collation %I.%I refresh version', nspname, collname) as refresh
from pg_collation join pg_namespace on pg_namespace.oid = collnamespace
where collversion is distinct from pg_collation_actual_version(pg_collation.oid) and collversion is not null
  and pg_collation.oid in (
      select unnest(indcollation::oid[]) from pg_index join pg_class on pg_class.oid = indrelid
      where relnamespace = to_regnamespace('signaling'))
