-- Tables whose policies apply to the owner of the schema's functions, or hide rows from the role of this session.
select case when is_closed
           then format('its policies on %s apply to the owner of the schema''s functions, so every call of these functions fails', tables)
           else format('the policies on %s apply to %s: workers send, but `worker status`, `worker message` and the dashboard fail '
                       'where they read these tables', tables, current_user) end as found,
       case when is_closed
           then 'alter table signaling.<table> no force row level security, or give tables and functions the same owner'
           else format('alter role %I bypassrls, or alter table signaling.<table> disable row level security', current_user) end as statement,
       is_closed as fails
from (select is_closed, string_agg(relname::text, ', ' order by relname) as tables
      from pg_class cross join lateral (
          select exists (select from pg_proc join pg_roles on pg_roles.oid = proowner
                         where pronamespace = relnamespace and prosecdef and not rolsuper and not rolbypassrls
                           and (relforcerowsecurity or not pg_has_role(proowner, relowner, 'usage'))) as is_closed) as functions
      where relnamespace = to_regnamespace('signaling') and relkind in ('r', 'p') and relrowsecurity
        and (is_closed or row_security_active(pg_class.oid))
      group by is_closed) as secured
order by fails desc
