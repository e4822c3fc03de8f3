-- Tells whether the database has refused a row, by the code and the context of the error: the same statement would fail again
-- with the same row, and could succeed with others. False for errors that pass by themselves: the connection, a transaction
-- that takes no writes, a deadlock, a full disk, a lock, a cancelled statement, a server that stops. An application's function
-- may raise any of these codes by itself, and so may a server that such a function asks.
--
-- context        the error's context (pg_exception_context)
-- began_at       when the change of one row began: if given, a row counts as refused, too, that a function of the application
--                keeps waiting (is_slow)
create or replace function signaling.is_refusal(code text, context text, began_at timestamptz default null) returns boolean
    language sql
as $$
    select pg_catalog.left(code, 2) <> all (array['08', '25', '40', '53', '57', '58']) and code <> '55P03'
        or pg_catalog.split_part(context, E'\n', 1) ~ 'PL/pgSQL function (?!signaling\.).* RAISE$'
        or pg_catalog.left(code, 2) = any (array['08', '40', '55', '58']) and context ~ 'PL/pgSQL function (?!signaling\.)'
        or signaling.is_slow(code, context, began_at)
$$;
