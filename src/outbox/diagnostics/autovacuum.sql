-- Settings that keep autovacuum from the schema's tables.
select 'off for the whole server' as found
where not (current_setting('autovacuum')::boolean and current_setting('track_counts')::boolean)
union all
select format('off for %I', relname) from pg_class
where relnamespace = to_regnamespace('signaling') and relkind = 'r'
  and exists (select from pg_options_to_table(reloptions) where option_name = 'autovacuum_enabled' and not option_value::boolean)
order by found
