-- Finds sequences of ids that are behind their tables: an insert will collide with a row. Logical replication copies rows
-- without the positions of sequences, and a restore of single tables may do the same.
--
-- Returns a row for each such sequence: the id that it gives out next, the first id from there on that a row has, the newest
-- row's id, and the statement that corrects the sequence.
-- Locks nothing.
-- Indexes: outbox_pkey, attempt_pkey.
create or replace function signaling.sequences_behind()
    returns table (table_name text, next_id bigint, taken_id bigint, newest_id bigint, statement text)
    language plpgsql stable security definer
    set search_path = pg_catalog, pg_temp set row_security = off set enable_seqscan = off set jit = off
as $$
declare
    sequence text;
begin
    foreach table_name in array array['signaling.outbox', 'signaling.attempt'] loop
        sequence := pg_get_serial_sequence(table_name, 'id');
        execute format('select last_value + is_called::integer from %s', sequence) into next_id;
        execute format('select max(id) from %s', table_name) into newest_id;
        if newest_id >= next_id then
            execute format('select min(id) from %s where id >= $1', table_name) into taken_id using next_id;
            statement := format('select setval(%L, (select max(id) from %s))', sequence, table_name);
            return next;
        end if;
    end loop;
end
$$;
