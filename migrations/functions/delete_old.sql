-- Deletes the final messages among the given ones that finished before the cutoff. Passes over locked messages. With
-- `isolates`, also passes over messages that the database refuses to delete, for example because of a foreign key.
--
-- isolates       deletes each message by itself
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
    deleted bigint := 0;
    context text;
begin
    if isolates then
        foreach one in array ids loop
            begin
                deleted := deleted + signaling.delete_old(array[one], cutoff);
                set constraints all immediate;
            exception when query_canceled or assert_failure or others then
                get stacked diagnostics context = pg_exception_context;
                if not signaling.is_refusal(sqlstate, context) then
                    raise;
                end if;
            end;
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
