-- Facts about the server that every role can read.
select current_setting('server_version') as version,
       current_setting('server_version_num')::int as version_num,
       current_setting('transaction_read_only')::boolean as is_read_only,
       (select version from pg_stat_ssl where pid = pg_backend_pid() and ssl) as tls_version,
       current_user::text as "user",
       quote_ident(current_database()) as database,
       current_setting('max_prepared_transactions')::int as max_prepared_transactions,
       current_setting('signaling.notify', true) as notify
