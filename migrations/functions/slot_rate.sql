-- Slots a second for a limit of calls in any sliding second: below the limit by the lateness that calls may have.
--
-- Sets nothing and qualifies each name, so that Postgres writes its text into the calling statement.
create or replace function signaling.slot_rate(limit_per_s double precision) returns double precision
    language sql immutable parallel safe
as 'select limit_per_s operator(pg_catalog./) 1.02::double precision';
