-- Some messages that were never claimed: as many as $2. The order is that of outbox_first_attempts, so that it is the
-- index which is read, and no more of it than that.
select id from signaling.outbox
where status = 'pending' and sent_at is null and claim_id is null and ($1::text is null or app = $1)
order by app, due_at, id
limit $2
