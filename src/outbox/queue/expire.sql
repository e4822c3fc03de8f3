-- Ends an app's rows whose time is over while nobody claims them: they wait for a later time, or in a lane that is held.
-- $1 app, $2 before when a lease must have ended for its row to count as lost.
with
over as materialized (
    select id, attempts, at_most_once, claimed_by, claim_id is not null as lost
    from signaling.outbox
    where app = $1 and status = 'pending' and expires_at <= (select clock_timestamp())
      and (claim_id is null or due_at <= least((select clock_timestamp()), $2))
    order by expires_at limit 1000
    for no key update skip locked
),
ended as (
    update signaling.outbox
    set status = case when claim_id is not null and at_most_once then 'unknown' else 'expired' end,
        finished_at = clock_timestamp(),
        attempts = attempts + (claim_id is not null)::int,
        error = case when claim_id is not null
                     then 'the worker that had this message ended without a record: whether it was called is not known'
                     else coalesce(error, 'not sent before its expires_at') end
    where id = any (array(select id from over))
    returning status
),
-- As in the claim: the log says what is not known.
logged as (
    insert into signaling.attempt (message_id, attempt, outcome, error, claimed_by)
    select id, attempts + 1, 'lost',
           'the worker that had this message ended without a record: whether it was called is not known', claimed_by
    from over where lost
)
select count(*) filter (where status = 'expired'), count(*) filter (where status = 'unknown') from ended
