-- Messages that have not ended: at most $2 of those that were never claimed, and as many of the others. The orders are those
-- of outbox_first_attempts and outbox_retries, so that no more of these indexes is read.
(select id from signaling.outbox
 where status = 'pending' and sent_at is null and claim_id is null and ($1::text is null or app = $1)
 order by app, due_at, id limit $2)
union all
(select id from signaling.outbox
 where status = 'pending' and (sent_at is not null or claim_id is not null) and ($1::text is null or app = $1)
 order by app, due_at, id limit $2)
