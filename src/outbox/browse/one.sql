-- One message ($1), with its content if $2, and with what its lane says about waiting.
select delivery_status.id, delivery_status.app, delivery_status.sender, delivery_status.destination,
       delivery_status.channel_name, state, delivery_status.attempts, delivery_status.max_attempts,
       delivery_status.http_status, delivery_status.request_id, delivery_status.error, delivery_status.created_at,
       outbox.due_at, outbox.claim_id is not null as is_claimed, outbox.due_at <= clock_timestamp() as is_due,
       delivery_status.sent_at, delivery_status.finished_at, delivery_status.expires_at, delivery_status.wait_for_ack,
       delivery_status.at_most_once, delivery_status.claimed_by, octet_length(outbox.payload) as payload_bytes,
       case when $2 then outbox.payload end as payload,
       lane.paused_at is not null as is_paused, lane.hold, lane.app is not null as has_lane, clock_timestamp() as now
from signaling.delivery_status
join signaling.outbox on outbox.id = $1
left join signaling.lane on lane.app = outbox.app
where delivery_status.id = $1
