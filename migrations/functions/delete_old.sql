-- Deletes the final messages among the given ones that finished before the cutoff. Passes over locked messages. With
-- `isolates`, also passes over messages that the database refuses to delete, for example because of a foreign key.
--
-- isolates       deletes each message by itself, and ends after one that takes a second
--
-- Returns how many it deleted.
-- Index: outbox_pkey.
create or replace function signaling.delete_old(ids bigint[], cutoff timestamptz, isolates boolean default false)
    returns bigint
    language plpgsql
as $$
#variable_conflict use_column
declare
    one bigint;
    began_at timestamptz;
    deleted bigint := 0;
    context text;
begin
    if isolates then
        -- In any order, so that a message which takes the time of all others does not always keep the same ones.
        for one in select given.id from unnest(ids) as given (id) order by random() loop
            began_at := clock_timestamp();
            begin
                deleted := deleted + signaling.delete_old(array[one], cutoff);
                set constraints all immediate;
            exception when query_canceled or assert_failure or others then
                get stacked diagnostics context = pg_exception_context;
                if not signaling.is_refusal(sqlstate, context, began_at) then
                    raise;
                end if;
            end;
            -- Postgres may have ended the statement (is_slow), so nothing would bound another try.
            exit when clock_timestamp() >= began_at + interval '1 second';
        end loop;
        return deleted;
    end if;
    with locked as materialized (
        select id from signaling.outbox
        where id = any (ids) and status <> 'pending' and finished_at < cutoff
        for update skip locked
    ), gone as (
        delete from signaling.outbox where id = any (array(select id from locked)) returning 1
    )
    select count(*) into deleted from gone;
    return deleted;
end
$$;
