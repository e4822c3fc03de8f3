-- Slots a second for a limit of calls in any sliding second. Calls may start up to 2 % of a second late, so the rate is that
-- much below the limit.
--
-- Without settings and with qualified names, so that Postgres inlines the function.
create or replace function signaling.slot_rate(limit_per_s double precision) returns double precision
    language sql immutable parallel safe
as 'select limit_per_s operator(pg_catalog./) 1.02::double precision';
