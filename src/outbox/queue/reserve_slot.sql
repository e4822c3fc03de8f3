-- Gives out one slot of an app to a call that belongs to no message. It is far enough ahead for the answer to get there.
-- $1 app, $2 how far ahead the slot may be in µs, $3 the call's name as a claim, $4 the call's lease in µs.
with
-- As in claim.sql: slots are given out one statement at a time, and the clock is read after the lock is had.
lane as materialized (
    select * from signaling.lane where app = $1 for update
),
clock as materialized (
    select lane.*, clock_timestamp() as at from lane
),
slot as materialized (
    select clock.*, greatest(next_slot_at, at + interval '250 ms') as slot_at,
           signaling.present_rate(rate_per_s, rate_at, limit_per_s, at) as present_rate,
           case when paused_at is not null then 'paused'
                when greatest(next_slot_at, at) > at + interval '2 seconds' then 'told to wait'
                when greatest(next_slot_at, at) > at + $2::bigint * interval '1 microsecond' then 'busy'
                when hold is not null and hold_until > at then 'held'
           end as refusal
    from clock
),
-- A held lane makes one call at a time: this one is then its probe, until it is given back.
moved as (
    update signaling.lane
    set next_slot_at = slot.slot_at + interval '1 second' / slot.present_rate,
        rate_per_s = slot.present_rate,
        rate_at = slot.at,
        hold_until = case when slot.hold is not null
                          then slot.at + $4::bigint * interval '1 microsecond' else lane.hold_until end,
        probe_claim_id = case when slot.hold is not null then $3 else lane.probe_claim_id end
    from slot
    where lane.app = $1 and slot.refusal is null
)
select at, slot_at, refusal, hold is not null as is_probe from slot
