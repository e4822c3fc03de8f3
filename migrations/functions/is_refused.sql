-- True while claims pass over a message because the database refuses to change it: see refuse().
--
-- The callers first check that the app has a refused message at all, because this call costs time for each message.
-- Index: refused_pkey.
create or replace function signaling.is_refused(app text, message_id bigint, at timestamptz) returns boolean
    language plpgsql stable
as $$
begin
    return exists (select from signaling.refused
                   where refused.app = $1 and refused.message_id = $2 and refused.retry_at > $3);
end
$$;
