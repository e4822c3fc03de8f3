-- Refuses an interval that is no length of time: null, negative, infinite, or with parts of both signs, such as
-- `-12 mons 360 days`. Postgres compares intervals as if each month had 30 days but adds them by the calendar. So a
-- comparison can't find out whether an interval leads into the past.
--
-- name           names the interval in the error
-- may_be_zero    accepts zero
create or replace function signaling.assert_duration(name text, duration interval, may_be_zero boolean default false)
    returns void
    language plpgsql
as $$
begin
    if duration is null or not signaling.is_duration(duration)
       or not may_be_zero and duration operator(pg_catalog.=) interval '0' then
        raise exception '% is %, which is no length of time', name, coalesce(duration::text, 'null')
            using errcode = 'invalid_parameter_value',
                  hint = case when may_be_zero then 'no part of the interval may be negative'
                              else 'the interval must be longer than zero, and no part of it may be negative' end;
    end if;
end
$$;
