-- Slots a second at a time: the rate climbs by 5 % a second from where the last cut, or the last claim, left it.
--
-- Sets nothing and qualifies each name, so that Postgres writes its text into the calling statement.
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
