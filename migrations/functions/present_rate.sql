-- The rate of a lane in slots a second, at a time. After a cut, the rate climbs by 5 % a second up to the limit's rate.
--
-- Without settings and with qualified names, so that Postgres inlines the function.
create or replace function signaling.present_rate(
    rate_per_s double precision, rate_at timestamptz, limit_per_s double precision, at timestamptz
) returns double precision
    language sql immutable parallel safe
as $$
    select least(signaling.slot_rate(limit_per_s),
                 rate_per_s operator(pg_catalog.*) pg_catalog.power(
                     1.05::double precision,
                     least(greatest(extract(epoch from at operator(pg_catalog.-) rate_at)::double precision, 0), 300)))
$$;
