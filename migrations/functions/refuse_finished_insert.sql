-- Trigger on inserts of rows that are not pending: refuses them. It fires for such rows alone.
create or replace function signaling.refuse_finished_insert() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'a message is inserted as pending: leave status, attempts and the worker''s other columns to their defaults'
        using errcode = 'check_violation', constraint = 'message_is_not_inserted_as_pending',
              schema = 'signaling', table = 'outbox';
end
$$;
