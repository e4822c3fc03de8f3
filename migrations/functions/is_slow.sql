-- True if a function of the application has kept one change waiting until Postgres ended the statement (statement_timeout),
-- although Postgres itself is fast. In an overloaded database no message must count as refused, so three facts have to
-- agree: the change took more than a second; a function outside of the schema was running when it ended; a write of this
-- function takes less than 200 ms now.
--
-- code, context  of the error
-- began_at       when the change began
--
-- The statement_timeout ends a statement only once. After that the caller changes no further message, because nothing would
-- bound the change.
create or replace function signaling.is_slow(code text, context text, began_at timestamptz) returns boolean
    language plpgsql
as $$
declare
    -- The code of the error that undoes the write.
    undone constant text := 'SGUND';
    tried_at timestamptz;
begin
    if code <> '57014' or began_at is null or clock_timestamp() < began_at + interval '1 second'
       or context !~ 'PL/[A-Za-z]+ function "?(?!signaling\.)|SQL function "' then
        return false;
    end if;
    tried_at := clock_timestamp();
    begin
        insert into signaling.refused (app, message_id, refused_at, times, retry_at)
        values ('', pg_catalog.pg_backend_pid(), tried_at, 0, tried_at);
        raise exception using errcode = undone;
    exception when sqlstate 'SGUND' then
        return clock_timestamp() < tried_at + interval '200 milliseconds';
    end;
end
$$;
