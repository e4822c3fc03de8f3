-- Claims due messages of an app, each with a slot. The messages belong to the worker until the lease ends.
--
-- claim_id       a fresh id for this claim: record() and release() name it
-- claimed_by     the worker's name, informational
-- lease          how long the messages belong to the worker
-- lookahead      the first slot lies at least this far ahead, because the result takes time to reach the worker
-- horizon        the last slot lies at most this long after the first possible one
-- ended_before   leases and expiries that ended after this do not count as over yet
-- first_after_*  scan position of first attempts: the claim reads messages after this (due_at, id). While a session holds an
--                old snapshot, the index keeps an entry for each message sent since, and a claim from the beginning would
--                read all of them. retry_after_*: the scan position of retries
-- poll_interval  next_due_at includes a retry only if the retry is due within this time
-- wants_wakeup   the worker listens: inserts notify it once this claim leaves no due message
-- avoided        destinations and channels that have enough calls in flight: the claim passes over their messages
-- environment    the worker's environment: a lane of another one gives out no slot, and its hold is 'other_environment'
-- one_by_one     after a claim that the database refused, or that timed out: tests each message on its own. If the
--                database refuses to change a message, lists it in signaling.refused
--
-- Returns one row per message, in no order, then one row about the lane, in which only `lane` is not null. If `passed` is not
-- null, the claim has read first attempts up to this scan position and no further, because it passed over many avoided
-- messages; `retry_passed` likewise for retries. If `set_back_s` is not null, the database's clock was set back since the
-- lane's last claim by so many seconds, and the worker calls set_messages_back().
-- Locks the lane's row, and the messages that it claims; skips messages that are locked.
-- Indexes: lane_newest, refused_pkey, and those of choose_due() or choose_probe(); then it reaches messages by their ctid.
create or replace function signaling.claim(
    app text, claim_id uuid, claimed_by text, max_messages integer, lease interval, horizon interval, lookahead interval,
    ended_before timestamptz, first_after_at timestamptz, first_after_id bigint, retry_after_at timestamptz,
    retry_after_id bigint, poll_interval interval, wants_wakeup boolean, avoided text[] default '{}',
    environment text default null, one_by_one boolean default false
) returns table (
    lane jsonb, id bigint, sender text, destination text, channel_name text, payload text, wait_for_ack boolean,
    enable_offline_messaging boolean, enable_historical_messaging boolean, attempts integer, uncharged integer,
    failing_since timestamptz, max_attempts integer, at_most_once boolean, expires_at timestamptz, traceparent text,
    is_retry boolean, created_at timestamptz, original_due_at timestamptz, slot_at timestamptz
)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on set jit = off
as $$
#variable_conflict use_column
declare
    at timestamptz;
    set_back_by interval;
    slots integer;
    hold_kind text;
    held_until timestamptz;
    locked record;
    rate double precision;
    throttled_per_s double precision;
    first_slot_at timestamptz;
    horizon_ends timestamptz;
    has_refused boolean;
    passed_at timestamptz;
    passed_id bigint;
    retry_passed_at timestamptz;
    retry_passed_id bigint;
    chosen tid[] := '{}';
    ended record;
    claimable tid[];
    refused integer;
    next_slot timestamptz;
    next_due_at timestamptz;
    wakeup text := 'off';
    stops_at timestamptz;
    refused_count integer;
    tested_count integer;
    claimed_count integer;
    written_count integer;
begin
    perform signaling.assert_session();
    perform signaling.assert_duration('lease', lease);
    perform signaling.assert_duration('horizon', horizon);
    perform signaling.assert_duration('lookahead', lookahead, may_be_zero => true);
    perform signaling.assert_duration('poll_interval', poll_interval, may_be_zero => true);

    -- 1. Lock the lane: one claim at a time gives out the app's slots, fleet-wide.
    select lane.ctid as place, lane.* into locked from signaling.lane
    where app collate "C" = claim.app order by generation desc limit 1 for no key update;
    if not found then
        raise exception 'the app % has no lane', claim.app using errcode = 'no_data_found', hint = 'signaling.open_lane() makes it';
    end if;

    -- 2. Read the clock, after the wait for that lock. If the clock was set back, the lane's times are ahead of it.
    at := clock_timestamp();
    if locked.rate_at > at + interval '1 second' then
        set_back_by := locked.rate_at - at;
        perform signaling.set_lane_back(app, set_back_by);
        select lane.ctid as place, lane.* into locked from signaling.lane
        where app collate "C" = claim.app order by generation desc limit 1;
    end if;
    ended_before := least(ended_before, at);

    -- 3. Count the slots: none while the app is paused, one for the probe of a held lane, else those within the horizon.
    rate := signaling.present_rate(locked.rate_per_s, locked.rate_at, locked.limit_per_s, at);
    throttled_per_s := case when rate < signaling.slot_rate(locked.limit_per_s) then rate end;
    first_slot_at := greatest(locked.next_slot_at, locked.retry_after_until, at + lookahead);
    horizon_ends := at + lookahead + horizon;
    if locked.environment is distinct from claim.environment then
        slots := 0; hold_kind := 'other_environment'; held_until := at + interval '1 hour';
    elsif locked.paused_at is not null then
        slots := 0; hold_kind := 'paused'; held_until := at + interval '1 hour';
    elsif locked.hold is not null then
        slots := (locked.hold_until <= at and first_slot_at <= horizon_ends)::integer;
        hold_kind := locked.hold; held_until := greatest(locked.hold_until, first_slot_at - horizon);
    else
        slots := greatest(0, least(max_messages, ceil(date_part('epoch', horizon_ends - first_slot_at) * rate)));
    end if;

    -- 4. Choose and lock a due message for each slot.
    has_refused := exists (select from signaling.refused where refused.app = claim.app);
    if slots > 0 and locked.hold is not null then
        chosen := signaling.choose_probe(app, at, ended_before, locked.hold_probes, locked.probe_target, has_refused);
    elsif slots > 0 then
        select due.chosen, due.passed_at, due.passed_id, due.retry_passed_at, due.retry_passed_id
        into chosen, passed_at, passed_id, retry_passed_at, retry_passed_id
        from signaling.choose_due(app, at, ended_before, slots, avoided, has_refused, first_after_at, first_after_id,
                                  retry_after_at, retry_after_id) as due;
    end if;

    -- 5. End expired messages. Also end messages that a lost worker may have sent, if they are at-most-once or have no attempt
    -- left. After a failed claim, also find the messages that the database refuses to change: one of them would make this
    -- claim fail, too.
    if one_by_one then
        stops_at := clock_timestamp() + interval '500 milliseconds';
    end if;
    select * into ended from signaling.end_overdue(chosen, at, stops_at);
    claimable := ended.claimable;
    refused := ended.refused;
    if one_by_one then
        select tested.claimable, tested.refused into claimable, refused_count
        from signaling.keep_claimable(claimable, claim_id, claimed_by, at + lease, at, stops_at) as tested;
        refused := refused + refused_count;
        -- Otherwise the worker would move its scan position past messages that were not tested in time.
        tested_count := ended.expired + ended.unknown + ended.failed + refused + cardinality(claimable);
        if tested_count < cardinality(chosen) then
            slots := tested_count;
        end if;
    end if;
    claimed_count := cardinality(claimable);

    -- 6. Advance the lane. The next probe of a held lane waits for the outcome of this one, or for the end of its lease.
    next_slot := first_slot_at;
    if claimed_count > 0 then
        next_slot := first_slot_at + claimed_count * interval '1 second' / rate;
        update signaling.lane
        set next_slot_at = next_slot, rate_per_s = rate, rate_at = at,
            hold_until = case when hold is not null then at + lease end,
            probe_claim_id = case when hold is not null then claim.claim_id end,
            probe_target = case when hold is not null then
                               (select coalesce(destination, channel_name) from signaling.outbox where ctid = claimable[1]) end,
            generation = generation + (random() < 0.02)::integer
        where ctid = locked.place;
    end if;

    -- 7. Find when the next message is due, for the worker's sleep.
    if slots = 0 or cardinality(chosen) < slots then
        next_due_at := least(
            (select due_at from signaling.outbox
             where app = claim.app and status = 'pending' and sent_at is null and claim_id is null and due_at > at
             order by due_at limit 1),
            (select due_at from signaling.outbox
             where app = claim.app and status = 'pending' and (sent_at is not null or claim_id is not null)
               and due_at > at and due_at <= at + poll_interval
             order by due_at limit 1));
    end if;
    if wants_wakeup then
        wakeup := coalesce(signaling.want_wakeup(app, case when slots > 0 then cardinality(chosen) < slots end, at), 'off');
    end if;

    -- 8. Claim the messages, and return them. The slots of retries lie between those of first attempts: if first attempts
    -- fail and retries succeed, the worker sees both at once, and does not hold the lane.
    return query
    with by_kind as materialized (
        select ctid as place, due_at, is_retry,
               row_number() over kind_by_age - 0.5 as rank, count(*) over (partition by is_retry) as count
        from signaling.outbox, lateral (select sent_at is not null or claim_id is not null as is_retry) as kind
        where ctid = any (claimable)
        window kind_by_age as (partition by is_retry order by due_at, id)
    ), due as materialized (
        select place, due_at, is_retry, row_number() over (order by rank / count, due_at) - 1 as nth from by_kind
    )
    update signaling.outbox
    set claim_id = claim.claim_id, claimed_by = claim.claimed_by, due_at = at + lease,
        attempts = attempts + (claim_id is not null)::integer
    from due where outbox.ctid = due.place
    returning null::jsonb, id, sender, destination, channel_name,
              payload, wait_for_ack, enable_offline_messaging, enable_historical_messaging, attempts, uncharged,
              failing_since, max_attempts, at_most_once, expires_at, traceparent, due.is_retry, created_at, due.due_at,
              first_slot_at + due.nth * interval '1 second' / rate;
    get diagnostics written_count = row_count;

    -- 9. Keep the list of refused messages. A trigger may skip an update without an error; such messages would take the slots
    -- of each claim.
    if written_count < claimed_count then
        perform signaling.refuse(
            array(select ctid from signaling.outbox
                  where ctid = any (claimable) and claim_id is distinct from claim.claim_id), at, null, null);
        refused := refused + claimed_count - written_count;
    end if;
    if has_refused then
        -- Messages that are claimed again, final or deleted are no longer refused.
        delete from signaling.refused where ctid = any (array(
            select refused.ctid from signaling.refused
            where refused.app = claim.app and retry_at <= at
              and not exists (select from signaling.outbox
                              where outbox.id = message_id and status = 'pending'
                                and claim_id is distinct from claim.claim_id)
            limit 1000));
    end if;
    lane := jsonb_build_object(
        'at', at, 'slots', slots, 'expired', ended.expired, 'unknown', ended.unknown, 'failed', ended.failed,
        'refused', refused,
        'hold', case when hold_kind is not null then jsonb_build_object('kind', hold_kind, 'until', held_until) end,
        'throttled_per_s', throttled_per_s, 'next_slot_at', next_slot, 'next_due_at', next_due_at, 'wakeup', wakeup,
        'passed', case when passed_at is not null then jsonb_build_array(passed_at, passed_id) end,
        'retry_passed', case when retry_passed_at is not null then jsonb_build_array(retry_passed_at, retry_passed_id) end,
        'set_back_s', extract(epoch from set_back_by));
    return next;
end
$$;
