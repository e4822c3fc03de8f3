-- Refuses sessions in which the protocol would go wrong:
--
-- - REPEATABLE READ and SERIALIZABLE: a claim that waited for the lane's row would fail, and any other claim would miss
--   messages that were committed meanwhile.
-- - A read-only database: an idle worker that only reads would not notice the outage. After the outage, that worker would
--   take messages for lost although other workers are about to record their outcomes.
-- - synchronous_commit = off, which this function overrides: a crash of the server could undo a claim, and a worker would
--   send an at-most-once message a second time.
create or replace function signaling.assert_session() returns void
    language plpgsql
as $$
begin
    if pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'the worker''s functions run in READ COMMITTED, and this transaction is %',
                        pg_catalog.upper(pg_catalog.current_setting('transaction_isolation'))
            using errcode = 'invalid_transaction_state', hint = 'begin isolation level read committed';
    end if;
    if pg_catalog.current_setting('transaction_read_only') = 'on' then
        raise exception 'the database takes no writes' using errcode = 'read_only_sql_transaction';
    end if;
    if pg_catalog.current_setting('synchronous_commit') = 'off' then
        perform pg_catalog.set_config('synchronous_commit', 'local', true);
    end if;
end
$$;
