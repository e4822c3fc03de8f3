-- The ids of pending messages, or null if there are $2 or more. The first half reads first attempts in the order of
-- outbox_first_attempts, the second half all others in the order of outbox_retries. So each half stops at $2.
select case when count(*) < $2 then coalesce(array_agg(id), '{}') end from (
    (select id from signaling.outbox
     where status = 'pending' and sent_at is null and claim_id is null and ($1::text is null or app = $1)
     order by app, due_at, id limit $2)
    union all
    (select id from signaling.outbox
     where status = 'pending' and (sent_at is not null or claim_id is not null) and ($1::text is null or app = $1)
     order by app, due_at, id limit $2)
) as pending
