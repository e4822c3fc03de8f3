-- True if an error shows that the database refuses a row: the same statement would fail again with this row, and could
-- succeed with others. False for errors of an outage: connection, read-only transaction, deadlock, full disk, lock, cancelled
-- statement, shutdown. A function of the application may raise these codes on its own, and so may a server that it calls;
-- the context of the error shows that.
--
-- context        the error's context (pg_exception_context)
-- began_at       when the change of one row began. If given, a row also counts as refused if a function of the application
--                keeps it waiting: see is_slow()
create or replace function signaling.is_refusal(code text, context text, began_at timestamptz default null) returns boolean
    language sql
as $$
    select pg_catalog.left(code, 2) <> all (array['08', '25', '40', '53', '57', '58']) and code <> '55P03'
        or pg_catalog.split_part(context, E'\n', 1) ~ 'PL/pgSQL function (?!signaling\.).* RAISE$'
        or pg_catalog.left(code, 2) = any (array['08', '40', '55', '58']) and context ~ 'PL/pgSQL function (?!signaling\.)'
        or signaling.is_slow(code, context, began_at)
$$;
