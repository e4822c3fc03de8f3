-- Facts about the server that every role can read.
select current_setting('server_version') as version,
       current_setting('server_version_num')::int as version_num,
       pg_is_in_recovery() as is_standby,
       current_setting('transaction_read_only')::boolean as is_read_only,
       (select version from pg_stat_ssl where pid = pg_backend_pid() and ssl) as tls_version,
       current_user::text as "user",
       quote_ident(current_database()) as database,
       current_setting('max_prepared_transactions')::int as max_prepared_transactions,
       current_setting('signaling.notify', true) as notify,
       security.closed as tables_closed_to_functions,
       security.hidden as tables_with_hidden_rows,
       current_setting('max_connections')::bigint
           - current_setting('superuser_reserved_connections')::bigint
           - coalesce(current_setting('reserved_connections', true), '0')::bigint as server_limit,
       (select rolconnlimit::bigint from pg_roles where rolname = session_user and rolconnlimit >= 0) as role_limit,
       (select datconnlimit::bigint from pg_database
        where datname = current_database() and datconnlimit >= 0) as database_limit,
       current_setting('max_connections')::bigint
           - current_setting('superuser_reserved_connections')::bigint
           - coalesce(current_setting('reserved_connections', true), '0')::bigint
           - connections.taken + 1 as server_left,
       (select rolconnlimit - connections.of_role + 1 from pg_roles
        where rolname = session_user and rolconnlimit >= 0) as role_left,
       (select datconnlimit - connections.of_database + 1 from pg_database
        where datname = current_database() and datconnlimit >= 0) as database_left,
       current_setting('autovacuum')::boolean and current_setting('track_counts')::boolean as autovacuum,
       array(select relname::text from pg_class
             where relnamespace = to_regnamespace('signaling') and relkind = 'r'
               and exists (select from pg_options_to_table(reloptions)
                           where option_name = 'autovacuum_enabled' and not option_value::boolean)
             order by relname) as tables_without_autovacuum
from (select coalesce(array_agg(relname::text order by relname) filter (where row_security_active(pg_class.oid)), '{}')
                 as hidden,
             coalesce(array_agg(relname::text order by relname) filter (where exists (
                 select from pg_proc join pg_roles on pg_roles.oid = proowner
                 where pronamespace = relnamespace and prosecdef and not rolsuper and not rolbypassrls
                   and (relforcerowsecurity or not pg_has_role(proowner, relowner, 'usage')))), '{}') as closed
      from pg_class
      where relnamespace = to_regnamespace('signaling') and relkind in ('r', 'p') and relrowsecurity) as security,
     (select count(*) as taken,
             count(*) filter (where usename = session_user) as of_role,
             count(*) filter (where datname = current_database()) as of_database
      from pg_stat_activity
      -- Every role can count the connections of other roles, but not read their statements.
      where datid is not null and coalesce(backend_type, 'client backend') = 'client backend') as connections
