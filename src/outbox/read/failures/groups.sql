-- Groups the newest $1 failed calls by outcome, HTTP status and error. Leaves out calls that were recorded longer than $2
-- ago. Rows are recorded in about the order of their ids, so the primary key bounds what is read.
with newest as (
    select id, message_id, http_status, outcome, error, recorded_at
    from signaling.attempt order by id desc limit $1
), of_app as (
    select newest.*, message.app,
           message.status = 'failed' and message.error is not distinct from newest.error
           and message.http_status is not distinct from newest.http_status as is_failed
    from newest
    -- Reads each message by the primary key. Without the limit, the planner could join the whole outbox.
    cross join lateral (
        select app, status, http_status, error from signaling.outbox where outbox.id = newest.message_id limit 1
    ) as message
    where recorded_at > clock_timestamp() - $2::interval and ($3::text is null or app = $3)
      and ($5::text is null or outcome = $5)
)
select app, outcome, http_status, error, count(*) as calls, count(distinct message_id) as messages,
       count(distinct message_id) filter (where is_failed) as failed,
       max(recorded_at) as last_at, (array_agg(message_id order by id desc))[1] as example_id, clock_timestamp() as now
from of_app
group by app, outcome, http_status, error
order by count(*) desc, max(id) desc
limit $4
