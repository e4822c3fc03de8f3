-- Runs a statement over messages, and passes over those that the database refuses to change: at first over all together, then
-- over each by itself. Without this, one refused message would keep all others from being changed.
--
-- statement      has the messages' ctids as $1, a time as $2 and the lease as $3
--
-- Returns how many messages have changed.
create or replace function signaling.change_each(statement text, places tid[], at timestamptz, lease interval default null)
    returns integer
    language plpgsql
as $$
declare
    changed integer;
    context text;
begin
    execute statement using places, at, lease;
    get diagnostics changed = row_count;
    -- Runs deferred triggers now. At the commit, their error would fail all messages.
    set constraints all immediate;
    return changed;
exception when query_canceled or assert_failure or others then
    get stacked diagnostics context = pg_exception_context;
    if not signaling.is_refusal(sqlstate, context) then
        raise;
    end if;
    if cardinality(places) < 2 then
        return 0;
    end if;
    return (select sum(signaling.change_each(statement, array[place], at, lease)) from unnest(places) as given (place));
end
$$;
