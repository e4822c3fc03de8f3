-- Logs the attempt that a lost worker may have made, for each of these messages that is claimed.
--
-- places         the messages' ctids: the caller has locked them
create or replace function signaling.log_lost_attempts(places tid[]) returns void
    language plpgsql
as $$
begin
    insert into signaling.attempt (message_id, attempt, outcome, error, fault, charged, claimed_by)
    select id, attempts + uncharged + 1, 'lost', signaling.lost_text(), 'worker', true, claimed_by
    from signaling.outbox
    where ctid = any (places) and claim_id is not null
      -- A trigger may keep the message as it is, so that each claim finds the same lost attempt again.
      and not exists (select from signaling.attempt as logged
                      where logged.message_id = outbox.id and logged.outcome = 'lost'
                        and logged.attempt = attempts + uncharged + 1 and logged.recorded_at >= outbox.due_at
                        and logged.claimed_by is not distinct from outbox.claimed_by);
end
$$;
