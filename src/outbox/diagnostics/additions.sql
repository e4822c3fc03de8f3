-- Triggers, constraints, indexes and rules of the application on the tables of messages and attempts, which may refuse what a
-- worker writes. $1 has the names of the schema's own constraints and indexes. The schema's own triggers call functions of
-- the schema.
select format('trigger %I on signaling.%I', tgname, relname)
from pg_trigger join pg_class on pg_class.oid = tgrelid join pg_proc on pg_proc.oid = tgfoid
where relnamespace = to_regnamespace('signaling') and not tgisinternal and tgenabled in ('O', 'A')
  and pronamespace <> relnamespace
  -- Bits of tgtype: insert 4, delete 8, update 16.
  and (relname = 'outbox' and tgtype::integer & 24 > 0 or relname = 'attempt' and tgtype::integer & 4 > 0)
union all
select format('constraint %I on signaling.%I', conname, relname)
from pg_constraint join pg_class on pg_class.oid = conrelid
where relnamespace = to_regnamespace('signaling') and relname in ('outbox', 'attempt') and contype in ('c', 'f', 'u', 'x')
  and conname <> all ($1)
union all
select format('index %I on signaling.%I', indexes.relname, tables.relname)
from pg_index join pg_class as indexes on indexes.oid = indexrelid join pg_class as tables on tables.oid = indrelid
where tables.relnamespace = to_regnamespace('signaling') and tables.relname in ('outbox', 'attempt')
  and (indisunique or indexprs is not null or indpred is not null) and indexes.relname <> all ($1)
  and not exists (select from pg_constraint where conindid = indexrelid)
union all
select format('rule %I on signaling.%I', rulename, tablename)
from pg_rules where schemaname = 'signaling' and tablename in ('outbox', 'attempt')
union all
select format('foreign key %I of %s', conname, conrelid::regclass)
from pg_constraint join pg_class on pg_class.oid = confrelid
where relnamespace = to_regnamespace('signaling') and relname = 'outbox' and contype = 'f' and confdeltype in ('a', 'r')
order by 1
limit 20
