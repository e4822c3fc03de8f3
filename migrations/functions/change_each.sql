-- Runs a statement over messages, and passes over messages that the database refuses to change. Without this, one refused
-- message would keep the others from being changed.
--
-- statement      its parameters are the messages' ctids ($1), a time ($2) and the lease ($3)
-- one_by_one     runs the statement for each message on its own from the start, and stops after a message that a function of
--                the application keeps waiting. By default, the first try is one statement for all messages
--
-- Returns how many messages have changed.
create or replace function signaling.change_each(
    statement text, places tid[], at timestamptz, lease interval default null, one_by_one boolean default false
) returns bigint
    language plpgsql
as $$
declare
    place tid;
    began_at timestamptz := clock_timestamp();
    changed_now bigint;
    changed bigint := 0;
    context text;
begin
    if one_by_one and cardinality(places) > 1 then
        -- In a random order: a message that uses up the time does not always keep the same messages from being changed.
        for place in select given.place from unnest(places) as given (place) order by random() loop
            began_at := clock_timestamp();
            changed_now := signaling.change_each(statement, array[place], at, lease, one_by_one => true);
            changed := changed + changed_now;
            -- Postgres may have ended the statement (is_slow), so nothing would bound another try.
            exit when changed_now = 0 and clock_timestamp() >= began_at + interval '1 second';
        end loop;
        return changed;
    end if;
    execute statement using places, at, lease;
    get diagnostics changed = row_count;
    -- Runs deferred triggers now. At the commit, their error would fail all messages.
    set constraints all immediate;
    return changed;
exception when query_canceled or assert_failure or others then
    get stacked diagnostics context = pg_exception_context;
    if not signaling.is_refusal(sqlstate, context, case when one_by_one then began_at end) then
        raise;
    end if;
    return case when cardinality(places) > 1
                then signaling.change_each(statement, places, at, lease, one_by_one => true) else 0 end;
end
$$;
