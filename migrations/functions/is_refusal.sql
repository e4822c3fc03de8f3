-- Tells whether the database has refused a row, by the code of the error: the same statement would fail again with the
-- same row, and could succeed with others. False for errors that pass by themselves: the connection, a transaction that takes
-- no writes, a deadlock, a full disk, a lock, a server that stops.
create or replace function signaling.is_refusal(code text) returns boolean
    language sql immutable
as $$
    select pg_catalog.left(code, 2) <> all (array['08', '25', '40', '53', '57', '58']) and code <> '55P03'
$$;
