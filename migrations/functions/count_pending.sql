-- How many messages of an app are pending, counted up to a million.
--
-- Indexes: outbox_first_attempts, outbox_retries.
create or replace function signaling.count_pending(app text) returns bigint
    language sql stable
as $$
    select count(*) from (
        select from signaling.outbox
        where outbox.app operator(pg_catalog.=) $1 and status operator(pg_catalog.=) 'pending'
          and sent_at is null and claim_id is null
        union all
        select from signaling.outbox
        where outbox.app operator(pg_catalog.=) $1 and status operator(pg_catalog.=) 'pending'
          and (sent_at is not null or claim_id is not null)
        limit 1000000) as pending
$$;
