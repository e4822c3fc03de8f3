-- Some messages that were claimed or called and have not ended: as many as $2. The order is that of outbox_retries.
select id from signaling.outbox
where status = 'pending' and (sent_at is not null or claim_id is not null) and ($1::text is null or app = $1)
order by app, due_at, id
limit $2
