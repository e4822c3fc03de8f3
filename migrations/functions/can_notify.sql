-- Whether inserts may notify workers. A transaction that has notified can't be prepared, and no trigger can know that its
-- transaction will be: where Postgres allows prepared transactions, workers poll instead. If nobody uses them,
-- `alter database … set signaling.notify = 'on'` says so; 'off' makes workers poll in any case.
create or replace function signaling.can_notify() returns boolean
    language sql stable parallel safe
as $$
    select case pg_catalog.current_setting('signaling.notify', true)
               when 'on' then true when 'off' then false
               else pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' end
$$;
