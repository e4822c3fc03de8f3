-- Cancels a pending message that no worker is sending. True if it did; false if a worker is sending the message, or if it
-- is final or does not exist. If a lost worker may have sent it, the log of attempts says so.
--
-- Locks the message.
-- Index: outbox_pkey.
create or replace function signaling.cancel(id bigint) returns boolean
    language sql volatile security definer set search_path = pg_catalog, pg_temp set row_security = off
as $$
    with cancelled as (
        update signaling.outbox
        set status = 'cancelled', finished_at = clock_timestamp(),
            attempts = attempts + (claim_id is not null)::int,
            error = case when claim_id is not null
                         then 'cancelled after a worker died with it: whether it was called is not known'
                         else error end
        where outbox.id = $1
          and outbox.status = 'pending'
          and (outbox.claim_id is null or outbox.due_at <= clock_timestamp())
        returning outbox.id, attempts, uncharged, claimed_by, claim_id is not null as lost
    ), logged as (
        insert into signaling.attempt (message_id, attempt, outcome, error, fault, charged, claimed_by)
        select cancelled.id, attempts + uncharged, 'lost',
               'the worker that had this message ended without a record: whether it was called is not known', 'worker', true,
               claimed_by
        from cancelled where lost
    )
    select exists (select from cancelled)
$$;
