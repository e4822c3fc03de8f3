-- True if inserts may notify workers. Postgres refuses to prepare a transaction that has notified, and a trigger can't know
-- whether its transaction will be prepared. So workers poll if Postgres allows prepared transactions. A superuser can
-- override that by `alter database … set signaling.notify`: 'on' if no application prepares transactions, 'off' if workers
-- shall always poll.
create or replace function signaling.can_notify() returns boolean
    language sql stable parallel safe
as $$
    select case pg_catalog.current_setting('signaling.notify', true)
               when 'on' then true when 'off' then false
               else pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' end
$$;
