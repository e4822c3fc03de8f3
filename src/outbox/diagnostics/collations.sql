-- Collations that have another version now than when the schema's indexes were built. An upgrade of the operating system may
-- change the order of texts, and an index in the old order misses rows.
select format('collation %I.%I was %s and is %s: indexes may miss messages', nspname, collname, collversion,
              coalesce(present, 'of no known version')) as found,
       format('alter collation %I.%I refresh version', nspname, collname) as statement
from pg_collation join pg_namespace on pg_namespace.oid = collnamespace
     cross join lateral pg_collation_actual_version(pg_collation.oid) as present
where collversion <> coalesce(present, '')
  and pg_collation.oid in (
      select unnest(indcollation::oid[]) from pg_index join pg_class on pg_class.oid = indrelid
      where relnamespace = to_regnamespace('signaling'))
