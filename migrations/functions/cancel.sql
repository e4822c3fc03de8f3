-- Cancels a pending message that no worker is sending. True if it did; false if a worker is sending the message, or if it
-- is final or does not exist. Fails if a trigger of the application skips the update. If a lost worker may have sent the
-- message, the log of attempts says so, unless a trigger or a constraint refuses the entry.
--
-- Locks the message.
-- Index: outbox_pkey.
create or replace function signaling.cancel(id bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off
as $$
#variable_conflict use_column
declare
    pending signaling.outbox;
    context text;
begin
    select * into pending from signaling.outbox
    where outbox.id = cancel.id and status = 'pending' and (claim_id is null or due_at <= clock_timestamp())
    for no key update;
    if not found then
        return false;
    end if;
    if pending.claim_id is not null then
        begin
            insert into signaling.attempt (message_id, attempt, outcome, error, fault, charged, claimed_by)
            values (cancel.id, pending.attempts + pending.uncharged + 1, 'lost',
                    signaling.lost_text(), 'worker', true, pending.claimed_by);
            set constraints all immediate;
        exception when query_canceled or assert_failure or others then
            get stacked diagnostics context = pg_exception_context;
            if not signaling.is_refusal(sqlstate, context) then
                raise;
            end if;
        end;
    end if;
    update signaling.outbox
    set status = 'cancelled', finished_at = clock_timestamp(), attempts = attempts + (claim_id is not null)::integer,
        error = case when claim_id is not null
                     then 'cancelled after a worker died with it: whether it was called is not known'
                     else error end
    where outbox.id = cancel.id;
    if not found then
        raise exception 'message % is not cancelled, because a trigger skips its update (%)', cancel.id, coalesce((
                select string_agg(quote_ident(tgname), ', ' order by tgname)
                from pg_trigger join pg_proc on pg_proc.oid = tgfoid
                where tgrelid = 'signaling.outbox'::regclass and not tgisinternal and tgenabled in ('O', 'A')
                  and pronamespace <> 'signaling'::regnamespace
                  -- Bits of tgtype: for each row 1, before 2, update 16.
                  and tgtype::integer & 19 = 19), 'a rule')
            using errcode = 'object_not_in_prerequisite_state', hint = 'correct the trigger, then cancel the message again';
    end if;
    return true;
end
$$;
