-- Tables whose policies apply to the owner of the schema's functions, or hide rows from the role of this session.
select case when is_closed
           then format('its policies on %s apply to the owner of the schema''s functions, so every call of these functions fails', tables)
           else format('the policies on %s apply to %s: workers send, but `worker status`, `worker message` and the dashboard fail '
                       'where they read these tables', tables, current_user) end as found,
       case when is_closed then remedies else format('alter role %I bypassrls', current_user) end as statement,
       is_closed as fails
from (select is_closed, string_agg(relname::text, ', ' order by relname) as tables,
             string_agg(concat_ws('; ', case when relforcerowsecurity
                                            then format('alter table signaling.%I no force row level security', relname) end,
                                        format('alter table signaling.%I owner to ', relname) || quote_ident(other_owner)), '; ' order by relname)
                 filter (where is_closed) as remedies
      from pg_class cross join lateral (
          select count(*) > 0 as is_closed,
                 min(rolname) filter (where not pg_has_role(proowner, relowner, 'usage')) as other_owner
          from pg_proc join pg_roles on pg_roles.oid = proowner
          where pronamespace = relnamespace and prosecdef and not rolsuper and not rolbypassrls
            and (relforcerowsecurity or not pg_has_role(proowner, relowner, 'usage'))) as functions
      where relnamespace = to_regnamespace('signaling') and relkind in ('r', 'p') and relrowsecurity
        and (is_closed or row_security_active(pg_class.oid))
      group by is_closed) as secured
order by fails desc
