-- Slots a second for a limit of calls in any sliding second. The rate is 2 % below the limit: 10 ms of a second for calls
-- that start late, and 10 ms for errors of the clock estimate and for the way to the API.
--
-- Without settings and with qualified names, so that Postgres inlines the function.
create or replace function signaling.slot_rate(limit_per_s double precision) returns double precision
    language sql immutable parallel safe
as 'select limit_per_s operator(pg_catalog./) 1.02::double precision';
