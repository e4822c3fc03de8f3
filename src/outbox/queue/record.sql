-- Writes what became of claimed rows, one array a column. $4 status: null puts the row back as pending.
-- The fence: a row is touched only while it is pending under the claim that its record names. `is not distinct from`, for
-- two ids that are never null, keeps Postgres from the index of rows that are claimed: on paper that one is the smallest, and where
-- somebody holds a snapshot it has an entry for every message that was sent since, all of which would be read for each record.
-- `case`, because Postgres has no statistics of it: beside millions of finished rows it expects next to none of these to be
-- pending.
with
-- One row of a series whose end is not known when the plan is made counts as a thousand. Of arrays Postgres expects ten
-- elements, and would compare each row with each record: 40,000 times for 200.
record as materialized (
    select record.*
    from unnest($1::bigint[], $2::uuid[], $3::timestamptz[], $4::text[], $5::int[], $6::timestamptz[],
                $7::int[], $8::text[], $9::text[], $10::text[], $11::bigint[])
        as record (id, claim_id, due_at, status, counted, sent_at, http_status, request_id, error, outcome, duration_us)
        cross join generate_series(1, least(1, cardinality($1)))
),
-- Rows that somebody else has locked are left for the next time: one of them must not hold up all the others.
free as materialized (
    select record.*, outbox.ctid as version
    from signaling.outbox join record using (id)
    where outbox.id = any ($1) and outbox.claim_id is not distinct from record.claim_id
      and case when outbox.status = 'pending' then true end
    for no key update of outbox skip locked
),
-- By their places in the table, which stay where they are while they are locked. Each look by the primary key passes the
-- versions that came before, as long as somebody may see them.
recorded as (
    update signaling.outbox
    set status = coalesce(record.status, 'pending'),
        due_at = record.due_at,
        -- A row that goes back belongs to no claim; a final one keeps the claim that finished it.
        claim_id = case when record.status is not null then outbox.claim_id end,
        claimed_by = case when record.status is not null then outbox.claimed_by end,
        finished_at = case when record.status is not null then clock_timestamp() end,
        attempts = outbox.attempts + record.counted,
        sent_at = coalesce(record.sent_at, outbox.sent_at),
        http_status = case when record.sent_at is not null then record.http_status else outbox.http_status end,
        request_id = case when record.sent_at is not null then record.request_id else outbox.request_id end,
        -- A row that expires after a call keeps what went wrong with that.
        error = case when record.sent_at is not null then record.error
                     when record.status = 'expired' then coalesce(outbox.error, record.error)
                     else coalesce(record.error, outbox.error) end
    from free as record
    where outbox.ctid = record.version
    returning outbox.id, outbox.attempts - record.counted + 1 as attempt
),
logged as (
    insert into signaling.attempt (message_id, attempt, sent_at, duration, http_status, outcome, error, claimed_by)
    select record.id, recorded.attempt, record.sent_at, record.duration_us * interval '1 microsecond',
           record.http_status, record.outcome, record.error, $12
    from record join recorded using (id)
    where record.outcome is not null
),
-- Late is a record whose claim has ended, unless this very record has ended it: then it was written before, and the
-- answer to that was lost. What is neither written nor late was locked.
rest as materialized (
    select id, claim_id, status from record where id not in (select id from recorded)
)
select id, true as is_written from recorded
union all
select rest.id, coalesce(outbox.claim_id = rest.claim_id and outbox.status = rest.status, false)
from rest left join lateral (select claim_id, status from signaling.outbox where id = rest.id limit 1) as outbox on true
where (outbox.claim_id = rest.claim_id and outbox.status = 'pending') is not true
