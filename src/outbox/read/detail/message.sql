-- One message, by the columns that a reader may read. $1 id.
select clock_timestamp() as at, id, app, outbox.sender, outbox.destination, outbox.channel_name, outbox.status,
       delivery_status.state, outbox.attempts, outbox.max_attempts, outbox.uncharged,
       outbox.failing_since, delivery_status.waits_for, outbox.wait_for_ack, outbox.at_most_once,
       outbox.created_at, outbox.due_at, outbox.expires_at, outbox.claim_id is not null as is_claimed,
       outbox.claimed_by, outbox.sent_at, outbox.finished_at, outbox.http_status, outbox.request_id, outbox.error,
       delivery_status.refused_until, has_column_privilege('signaling.outbox', 'payload', 'select') as may_read_payload
from signaling.outbox join signaling.delivery_status using (id, app)
where id = $1
