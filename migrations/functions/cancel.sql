-- Cancels a pending message that no worker is sending. Returns true if the message is cancelled, and false if a worker is
-- sending it, it is final, or it does not exist. Fails if a trigger of the application skips the update. If a lost worker
-- may have sent the message, the function logs that attempt, unless a trigger or a constraint refuses the entry.
--
-- Locks the message.
-- Index: outbox_pkey.
create or replace function signaling.cancel(id bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off
as $$
#variable_conflict use_column
declare
    pending record;
begin
    select ctid as place, claim_id into pending from signaling.outbox
    where outbox.id = cancel.id and status = 'pending' and (claim_id is null or due_at <= clock_timestamp())
    for no key update;
    if not found then
        return false;
    end if;
    perform signaling.change_each('select signaling.log_lost_attempts($1)', array[pending.place], clock_timestamp());
    update signaling.outbox
    set status = 'cancelled', finished_at = clock_timestamp(), attempts = attempts + (claim_id is not null)::integer,
        error = case when claim_id is not null then 'cancelled: ' || signaling.lost_text() else error end
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
