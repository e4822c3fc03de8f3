-- The roles that were granted every function of $1. If $2 is false, only roles that may insert.
with functions as (
    select oid, proowner, proacl from pg_proc
    where pronamespace = to_regnamespace('signaling') and proname = any ($1::text[])
)
select rolname::text
from functions, aclexplode(proacl) as acl, pg_roles
where pg_roles.oid = acl.grantee and acl.grantee <> proowner
  and ($2 or has_any_column_privilege(rolname, to_regclass('signaling.outbox'), 'insert'))
group by rolname
having count(distinct functions.oid) = (select count(*) from functions)
