-- Writes refused messages to signaling.refused: a trigger or a constraint of the application refuses their change. Claims
-- pass over a listed message until its retry_at. Without the list, one such message would fail each claim of its app. The
-- time until retry_at doubles from one minute to 15.
--
-- How functions find such messages: a call that changes many messages fails as a whole. The worker, or change_each(), then
-- repeats the change with `one_by_one`, each message in its own subtransaction. is_refusal() tells refusals from outages.
--
-- places         the messages' ctids: the caller has locked them
-- code           the code of the error; null: a trigger skipped the change without an error
-- name           the constraint that the error named, if it named one
--
-- Index: refused_pkey.
create or replace function signaling.refuse(places tid[], at timestamptz, code text, name text) returns void
    language plpgsql
as $$
#variable_conflict use_column
begin
    insert into signaling.refused as noted (app, message_id, refused_at, times, retry_at, code, constraint_name)
    select app, id, at, 1, at + interval '1 minute', refuse.code, nullif(refuse.name, '')
    from signaling.outbox where ctid = any (places)
    order by app, id
    on conflict on constraint refused_pkey do update
    set refused_at = at, times = noted.times + 1, code = excluded.code, constraint_name = excluded.constraint_name,
        retry_at = at + least(interval '15 minutes', interval '1 minute' * power(2, least(noted.times, 10)));
end
$$;
