-- True if the error code means that the database refused a row: the statement would fail again with this row, and could
-- succeed with other rows. False for errors that pass by themselves: the connection, a transaction that takes
-- no writes, a deadlock, a full disk, a lock, a server that stops.
create or replace function signaling.is_refusal(code text) returns boolean
    language sql immutable
as $$
    select pg_catalog.left(code, 2) <> all (array['08', '25', '40', '53', '57', '58']) and code <> '55P03'
$$;
