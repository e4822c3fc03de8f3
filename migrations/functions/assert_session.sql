-- Refuses to run the protocol in a session in which it would go wrong.
--
-- In REPEATABLE READ and SERIALIZABLE a claim that waited for the lane's row would fail, and one that did not would miss
-- messages that were committed meanwhile. A claim whose commit a crash can undo could send a message that may be sent
-- once only a second time. And where the database takes no writes, an idle worker that only looks would not notice: once
-- it does again, that worker would take messages for lost whose outcomes others are about to record.
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
