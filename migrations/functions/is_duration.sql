-- True for an interval that is a length of time: finite, and without a negative part.
create or replace function signaling.is_duration(duration interval) returns boolean
    language sql immutable parallel safe
as $$
    select pg_catalog.isfinite(duration)
       and extract(year from duration) >= 0 and extract(month from duration) >= 0 and extract(day from duration) >= 0
       and extract(hour from duration) >= 0 and extract(minute from duration) >= 0 and extract(second from duration) >= 0
$$;
