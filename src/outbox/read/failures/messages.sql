-- The messages of one group of groups.sql that have ended as failed: at most $7, newest first.
with newest as (
    select message_id, http_status, outcome, error, recorded_at from signaling.attempt order by id desc limit $1
)
select distinct message.id
from newest
cross join lateral (
    select id, app, status, http_status, error from signaling.outbox where outbox.id = newest.message_id limit 1
) as message
where recorded_at > clock_timestamp() - $2::interval
  and app = $3 and outcome = $4 and newest.http_status is not distinct from $5 and newest.error is not distinct from $6
  and message.status = 'failed' and message.error is not distinct from newest.error
  and message.http_status is not distinct from newest.http_status
order by message.id desc
limit $7
