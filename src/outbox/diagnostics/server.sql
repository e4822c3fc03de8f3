-- Facts about the server that every role can read.
select current_setting('server_version') as version,
       current_setting('server_version_num')::int as version_num,
       current_setting('transaction_read_only')::boolean as is_read_only,
       (select version from pg_stat_ssl where pid = pg_backend_pid() and ssl) as tls_version,
       current_user::text as "user",
       quote_ident(current_database()) as database,
       current_setting('max_prepared_transactions')::int as max_prepared_transactions,
       current_setting('signaling.notify', true) as notify,
       security.closed as tables_closed_to_functions,
       security.hidden as tables_with_hidden_rows
from (select string_agg(relname::text, ', ' order by relname) filter (where row_security_active(pg_class.oid)) as hidden,
             string_agg(relname::text, ', ' order by relname) filter (where exists (
                 select from pg_proc join pg_roles on pg_roles.oid = proowner
                 where pronamespace = relnamespace and prosecdef and not rolsuper and not rolbypassrls
                   and (relforcerowsecurity or not pg_has_role(proowner, relowner, 'usage')))) as closed
      from pg_class
      where relnamespace = to_regnamespace('signaling') and relkind in ('r', 'p') and relrowsecurity) as security
