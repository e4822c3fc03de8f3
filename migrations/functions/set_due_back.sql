-- Corrects the due times of messages that set_messages_back() has locked. Returns the number of changed messages.
create or replace function signaling.set_due_back(places tid[], at timestamptz, lease interval) returns integer
    language plpgsql
as $$
#variable_conflict use_column
declare
    changed integer;
begin
    update signaling.outbox
    set due_at = case when claim_id is not null then at + lease
                      when sent_at is null or attempts + uncharged = 0 then at
                      else at + (due_at - sent_at) end
    where ctid = any (places);
    get diagnostics changed = row_count;
    return changed;
end
$$;
