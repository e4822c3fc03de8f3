-- Takes due rows of one app, each with a send slot, for as long as the lease.
-- $1 app, $2 rows at most, $3 horizon in µs, $4 lease in µs, $5 claim_id, $6 claimed_by,
-- $7 whether this worker wants the bell rung while it sleeps, $8 before when a lease must have ended for its row to
-- count as lost, $9 and $10 the due_at and id after which rows are looked for that were never claimed, $11 the due_at
-- after which the others are; null to look at all. $12 how far ahead the first slot has to be, in µs,
-- $13 how far ahead to look for claimed rows that will be due, in µs.
with
-- The lane's row stays locked until this statement ends: slots are given out one claim at a time, fleet-wide. Each claim
-- writes it, and while somebody holds a snapshot no version of it goes away: the newest ones are found first.
lane as materialized (
    select * from signaling.lane where app collate "C" = $1 order by generation desc limit 1 for update
),
-- A step of its own, so that the clock is read after the lock is had and not before the wait for it.
clock as materialized (
    select lane.*, clock_timestamp() as at from lane
),
-- How many slots may be given out now: none while a person has paused the app, a single one to probe a lane that is
-- held, and else those within the horizon.
budget as materialized (
    select at, bell_until, first_slot_at, present_rate, full_rate, interval '1 second' / present_rate as spacing,
           case when paused_at is not null then 'paused' else hold end as hold,
           -- A pause that the API has asked for goes for probes too.
           case when paused_at is not null then at + interval '1 hour'
                else greatest(hold_until, first_slot_at - $3::bigint * interval '1 microsecond') end as hold_until,
           case when paused_at is not null then 0
                when hold is not null
                then (hold_until <= at and first_slot_at <= at + $3::bigint * interval '1 microsecond')::int
                else greatest(0, least($2::bigint, ceil(
                    extract(epoch from at + $3::bigint * interval '1 microsecond' - first_slot_at)
                    * present_rate)::bigint))
           end as slots
    from (select *, greatest(next_slot_at, at + $12::bigint * interval '1 microsecond') as first_slot_at,
                 signaling.present_rate(rate_per_s, rate_at, limit_per_s, at) as present_rate,
                 signaling.slot_rate(limit_per_s) as full_rate
          from clock) as paced
),
-- While both kinds wait, messages that are called again have a fifth of the slots, on average. What one kind
-- leaves over is the other's.
quota as materialized (
    select floor(slots * 0.2 + random())::bigint as slots from budget
),
again as materialized (
    select ctid as version, id, due_at, expires_at, at_most_once, claim_id, claimed_by, attempts
    from signaling.outbox
    where app = $1 and status = 'pending' and (sent_at is not null or claim_id is not null)
      and due_at > coalesce($11::timestamptz, '-infinity')
      and due_at <= (select at from budget) and (claim_id is null or due_at <= $8)
    order by due_at, id
    limit (select slots from quota)
    for no key update skip locked
),
fresh as materialized (
    select ctid as version, id, due_at, expires_at, at_most_once, claim_id, claimed_by, attempts
    from signaling.outbox
    where app = $1 and status = 'pending' and sent_at is null and claim_id is null
      and (due_at, id) > (coalesce($9::timestamptz, '-infinity'), $10::bigint)
      and due_at <= (select at from budget)
    order by due_at, id
    limit (select budget.slots - (select count(*) from again) from budget)
    for no key update skip locked
),
last_again as materialized (
    select due_at, id from again order by due_at desc, id desc limit 1
),
-- Goes on where `again` has stopped, unless that has found all there is.
more_again as materialized (
    select ctid as version, id, due_at, expires_at, at_most_once, claim_id, claimed_by, attempts
    from signaling.outbox
    where app = $1 and status = 'pending' and (sent_at is not null or claim_id is not null)
      and (due_at, id) > (coalesce((select due_at from last_again), $11::timestamptz, '-infinity'),
                          coalesce((select id from last_again), 0))
      and due_at <= (select at from budget) and (claim_id is null or due_at <= $8)
    order by due_at, id
    limit (select case when taken.again < quota.slots then 0 else budget.slots - taken.again - taken.fresh end
           from budget, quota, (select (select count(*) from again) as again, (select count(*) from fresh) as fresh) as taken)
    for no key update skip locked
),
-- A row that is not to be called takes a place but no slot: its time is over (expired), or nobody can know whether
-- an earlier claim that never recorded had called it (unknown, if once is all it may be called).
due as materialized (
    select version, id, due_at, attempts, claimed_by,
           claim_id is not null as lost,
           case when claim_id is not null and at_most_once then 'unknown'
                when expires_at <= (select at from budget) then 'expired'
           end as ended_as
    from (select * from again union all select * from fresh union all select * from more_again) as taken
),
slotted as materialized (
    select version, id, due_at as was_due_at, row_number() over (order by due_at, id) - 1 as place
    from due where ended_as is null
),
-- By their places in the table, which stay where they are while the rows are locked: no index is read a second time.
-- `= any(array)` instead of a join, whatever the planner believes of the CTEs.
claimed as (
    update signaling.outbox
    set claim_id = $5, claimed_by = $6,
        due_at = (select at from budget) + $4::bigint * interval '1 microsecond',
        attempts = attempts + (claim_id is not null)::int
    where ctid = any (array(select version from slotted))
    returning *
),
ended as (
    update signaling.outbox
    set status = (select ended_as from due where due.id = outbox.id),
        finished_at = (select at from budget),
        attempts = attempts + (claim_id is not null)::int,
        error = case when claim_id is not null
                     then 'the worker that had this message ended without a record: whether it was called is not known'
                     else coalesce(error, 'not sent before its expires_at') end
    where ctid = any (array(select version from due where ended_as is not null))
    returning status
),
-- The log says why a message may be called twice.
lost as (
    insert into signaling.attempt (message_id, attempt, outcome, error, claimed_by)
    select id, attempts + 1, 'lost',
           'the worker that had this message ended without a record: whether it was called is not known', claimed_by
    from due where lost
),
-- Where everything due could be taken, the workers go to sleep and want the bell; a backlog keeps them awake
-- without it. It is wanted for a minute at a time, so that workers which died don't make producers ring for long.
after as materialized (
    select claimed, expired, unknown,
           first_slot_at + (select count(*) from slotted) * spacing as next_slot_at,
           case when not $7::boolean or slots = 0 then bell_until
                when claimed + expired + unknown >= slots then null
                when bell_until > at + interval '30 seconds' then bell_until
                else at + interval '60 seconds'
           end as bell_until
    from budget,
         (select (select count(*) from claimed) as claimed,
                 count(*) filter (where status = 'expired') as expired,
                 count(*) filter (where status = 'unknown') as unknown
          from ended) as counts
),
-- Nothing is written where nothing changes: an idle worker's polls leave no dead rows behind.
moved as (
    update signaling.lane
    set next_slot_at = case when after.claimed > 0 then after.next_slot_at else lane.next_slot_at end,
        -- The next probe waits for this one's outcome, or at the longest for the end of its lease.
        hold_until = case when budget.hold is not null and after.claimed > 0
                          then budget.at + $4::bigint * interval '1 microsecond' else lane.hold_until end,
        probe_claim_id = case when budget.hold is not null and after.claimed > 0 then $5 else lane.probe_claim_id end,
        bell_until = after.bell_until,
        rate_per_s = budget.present_rate,
        rate_at = budget.at,
        generation = lane.generation + (random() < 0.02)::int
    from budget, after
    where lane.app collate "C" = $1
      -- Of the version that this statement sees, which is older than the locked one if there was a wait for the lock.
      and lane.generation >= (select generation from signaling.lane where app collate "C" = $1 order by generation desc limit 1)
      and (after.claimed > 0 or after.bell_until is distinct from lane.bell_until)
)
select budget.at, budget.slots, budget.hold, budget.hold_until, after.expired, after.unknown, after.next_slot_at,
       -- What is due after now, be it the end of somebody's lease: when to look again, if nothing else comes. Who has
       -- not got all looks again anyway. Of rows that were claimed, only those are looked at that are due soon: while somebody
       -- holds a snapshot, their index keeps an entry for the lease of every message that was sent since.
       case when after.claimed + after.expired + after.unknown < budget.slots or budget.slots = 0 then least(
             (select due_at from signaling.outbox
              where app = $1 and status = 'pending' and sent_at is null and claim_id is null
                and due_at > (select at from budget)
              order by due_at limit 1),
             (select due_at from signaling.outbox
              where app = $1 and status = 'pending' and (sent_at is not null or claim_id is not null)
                and due_at > (select at from budget)
                and due_at <= (select at from budget) + $13::bigint * interval '1 microsecond'
              order by due_at limit 1)) end as next_due_at,
       last_fresh.due_at as last_fresh_due_at, last_fresh.id as last_fresh_id,
       quota.slots > 0 and last_again.id is null as nothing_again,
       case when budget.present_rate < budget.full_rate then budget.present_rate end as slowed_to_per_s,
       -- The bell was switched on just now: an insert that has looked before, and commits later, does not ring.
       coalesce(budget.bell_until, 'epoch') <= budget.at and coalesce(after.bell_until > budget.at, false) as bell_switched_on,
       claimed.id, claimed.sender, claimed.destination, claimed.channel_name, claimed.payload,
       claimed.wait_for_ack, claimed.enable_offline_messaging, claimed.enable_historical_messaging,
       claimed.attempts, claimed.max_attempts, claimed.at_most_once, claimed.expires_at, claimed.traceparent,
       case when claimed.sent_at is null and claimed.attempts = 0
            then greatest(slotted.was_due_at, claimed.created_at) end as wanted_at,
       slotted.was_due_at, budget.first_slot_at + slotted.place * budget.spacing as slot_at
from budget cross join after cross join quota
     left join last_again on true
     left join (select due_at, id from fresh order by due_at desc, id desc limit 1) as last_fresh on true
     left join (claimed join slotted using (id)) on true
order by slotted.place
