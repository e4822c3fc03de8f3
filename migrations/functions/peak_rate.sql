-- The most calls of an app that started within any sliding second between two times. Calls of lost workers and of deleted
-- messages are not recorded, so they do not count.
--
-- Locks nothing.
-- Indexes: those of calls().
create or replace function signaling.peak_rate(app text, "from" timestamptz, "to" timestamptz) returns bigint
    language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(max(calls), 0) from (
        select count(*) over (order by sent_at range between interval '999999 microseconds' preceding and current row) as calls
        from signaling.calls($1, $2, $3)
    ) as sliding
$$;
