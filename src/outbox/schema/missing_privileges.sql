-- The privileges that this role lacks: on the tables $1 and the functions $2.
select 'usage on the schema signaling'
where not has_schema_privilege(to_regnamespace('signaling'), 'usage')
union all
select 'select on signaling.' || name
from unnest($1::text[]) as name
     left join pg_class on relname = name and relnamespace = to_regnamespace('signaling')
where not coalesce(has_table_privilege(pg_class.oid, 'select'), false)
union all
select 'execute on function signaling.' || name
from unnest($2::text[]) as name
     left join pg_proc on proname = name and pronamespace = to_regnamespace('signaling')
where not coalesce(has_function_privilege(pg_proc.oid, 'execute'), false)
