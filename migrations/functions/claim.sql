-- Takes due messages of an app, each with a send slot; they belong to the worker until the lease ends.
--
-- claim_id       a fresh id for this claim: record() and release() name it
-- claimed_by     the worker's name, informational
-- lease          how long the messages belong to the worker
-- lookahead      slots lie at least so far ahead, the time in which the result reaches the worker, and
-- horizon        at most so much further
-- over_before    leases and expiries that ended after this do not count as over yet
-- first_after_*  the claim passes over first attempts up to this (due_at, id); retry_after_* likewise for retries
-- poll_interval  next_due_at includes a retry only if it is due within this time
-- wants_wakeup   the worker listens: inserts shall notify once all that is due is taken
-- avoided        destinations and channels that have enough calls in flight: the claim passes over their messages
-- environment    the worker's environment: a lane of another one gives out no slot, and its hold is 'other_environment'
-- isolates       after a claim that the database has refused, or that did not end in time: finds out which messages a trigger
--                or a constraint keeps from being changed, and notes them in signaling.refused. Claims pass over them until
--                another try is due.
--
-- Returns one row a message, in no order, and then one row about the lane, in which id is null. If passed_at and passed_id
-- are not null, the claim has taken the first attempts up to this (due_at, id) and has not looked further, because many
-- messages are avoided; retry_passed_* likewise for retries. If set_back_by is not null, the clock of the database was set
-- back since the lane's last claim, and set_messages_back() has to bring the times of messages back.
-- Locks the lane's row, and the messages that it takes; passes over messages that are locked.
-- Indexes: lane_newest, refused_pkey, outbox_retries, outbox_first_attempts; from there on it reaches messages by their ctid.
create or replace function signaling.claim(
    app text, claim_id uuid, claimed_by text, max_messages integer, lease interval, horizon interval, lookahead interval,
    over_before timestamptz, first_after_at timestamptz, first_after_id bigint, retry_after_at timestamptz,
    retry_after_id bigint, poll_interval interval, wants_wakeup boolean, avoided text[] default '{}',
    environment text default null, isolates boolean default false
) returns table (
    at timestamptz, slots integer, hold text, hold_until timestamptz, throttled_per_s double precision, expired integer,
    unknown integer, failed integer, refused integer, next_slot_at timestamptz, next_due_at timestamptz, wakeup text,
    passed_at timestamptz, passed_id bigint, retry_passed_at timestamptz, retry_passed_id bigint, set_back_by interval,
    id bigint, sender text, destination text, channel_name text, payload text, wait_for_ack boolean,
    enable_offline_messaging boolean, enable_historical_messaging boolean, attempts integer, uncharged integer,
    failing_since timestamptz, max_attempts integer, at_most_once boolean, expires_at timestamptz, traceparent text, is_retry boolean, created_at timestamptz,
    was_due_at timestamptz, slot_at timestamptz
)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on set jit = off
as $$
#variable_conflict use_column
declare
    -- How many messages of each kind a claim looks at while it avoids destinations.
    most_looked_at constant integer := 2000;
    newest_id constant bigint := 9223372036854775807;
    locked record;
    rate double precision;
    first_slot_at timestamptz; horizon_ends timestamptz;
    retries tid[] := '{}';
    firsts tid[] := '{}';
    taken tid[] := '{}';
    overdue tid[];
    claimable tid[];
    has_refused boolean;
    stops_at timestamptz;
    retry_count integer; claimed_count integer; written_count integer; refused_count integer; done_count integer;
begin
    perform signaling.assert_session();
    perform signaling.assert_duration('lease', lease);
    perform signaling.assert_duration('horizon', horizon);
    perform signaling.assert_duration('lookahead', lookahead, may_be_zero => true);
    perform signaling.assert_duration('poll_interval', poll_interval, may_be_zero => true);

    -- Lock the lane: slots are given out by one claim at a time, fleet-wide.
    select lane.ctid as place, lane.* into locked from signaling.lane
    where app collate "C" = claim.app order by generation desc limit 1 for no key update;
    if not found then
        raise exception 'the app % has no lane', claim.app using errcode = 'no_data_found', hint = 'signaling.open_lane() makes it';
    end if;

    -- Read the clock after the wait for that lock. If it was set back, the times of the lane are ahead of it.
    at := clock_timestamp();
    if locked.rate_at > at + interval '1 second' then
        set_back_by := locked.rate_at - at;
        perform signaling.set_lane_back(app, set_back_by);
        select lane.ctid as place, lane.* into locked from signaling.lane
        where app collate "C" = claim.app order by generation desc limit 1;
    end if;
    over_before := least(over_before, at);

    -- Count the slots: none while the app is paused, one for the probe of a held lane, else those within the horizon.
    rate := signaling.present_rate(locked.rate_per_s, locked.rate_at, locked.limit_per_s, at);
    first_slot_at := greatest(locked.next_slot_at, locked.retry_after_until, at + lookahead);
    horizon_ends := at + lookahead + horizon;
    if locked.environment is distinct from claim.environment then
        slots := 0; hold := 'other_environment'; hold_until := at + interval '1 hour';
    elsif locked.paused_at is not null then
        slots := 0; hold := 'paused'; hold_until := at + interval '1 hour';
    elsif locked.hold is not null then
        slots := (locked.hold_until <= at and first_slot_at <= horizon_ends)::integer;
        hold := locked.hold; hold_until := greatest(locked.hold_until, first_slot_at - horizon);
    else
        slots := greatest(0, least(max_messages, ceil(date_part('epoch', horizon_ends - first_slot_at) * rate)));
    end if;

    -- Messages that a trigger or a constraint keeps from being changed would make the claim fail.
    has_refused := exists (select from signaling.refused where refused.app = claim.app);
    if slots > 0 and locked.hold is not null then
        taken := signaling.choose_probe(app, at, over_before, locked.hold_probes, locked.probe_target);
    elsif slots > 0 then
        -- Pass over avoided destinations, but not over any number of their messages.
        if avoided <> '{}' then
            select due_at, id into passed_at, passed_id from signaling.outbox
            where app = claim.app and status = 'pending' and sent_at is null and claim_id is null
              and (due_at, id) > (first_after_at, first_after_id) and due_at <= at
            order by due_at, id offset most_looked_at limit 1;
            select due_at, id into retry_passed_at, retry_passed_id from signaling.outbox
            where app = claim.app and status = 'pending' and (sent_at is not null or claim_id is not null)
              and (due_at, id) > (retry_after_at, retry_after_id) and due_at <= at
            order by due_at, id offset most_looked_at limit 1;
        end if;

        -- Lock the due messages of both kinds, oldest first.
        retries := array(
            select ctid from signaling.outbox
            where app = claim.app and status = 'pending' and (sent_at is not null or claim_id is not null)
              and (due_at, id) > (retry_after_at, retry_after_id) and due_at <= at
              and (due_at, id) <= (coalesce(retry_passed_at, at), coalesce(retry_passed_id, newest_id))
              and (claim_id is null or due_at <= over_before)
              and (expires_at is null or expires_at > at or expires_at <= over_before)
              and coalesce(destination, channel_name) <> all (avoided)
              and case when has_refused then not exists (
                      select from signaling.refused
                      where refused.app = claim.app and message_id = outbox.id and retry_at > at) else true end
            order by due_at, id limit slots for no key update skip locked);
        firsts := array(
            select ctid from signaling.outbox
            where app = claim.app and status = 'pending' and sent_at is null and claim_id is null
              and (due_at, id) > (first_after_at, first_after_id) and due_at <= at
              and (due_at, id) <= (coalesce(passed_at, at), coalesce(passed_id, newest_id))
              and (expires_at is null or expires_at > at or expires_at <= over_before)
              and coalesce(destination, channel_name) <> all (avoided)
              and case when has_refused then not exists (
                      select from signaling.refused
                      where refused.app = claim.app and message_id = outbox.id and retry_at > at) else true end
            order by due_at, id limit slots for no key update skip locked);
        -- Take them. While both kinds wait, retries get a fifth of the slots on average; each kind gets what the other
        -- leaves over.
        retry_count := least(cardinality(retries),
                             greatest(floor(slots * 0.2 + random())::integer, slots - cardinality(firsts)));
        taken := retries[:retry_count] || firsts[:slots - retry_count];

        -- The next claim looks again at messages that are left over.
        if cardinality(firsts) >= slots - retry_count then
            passed_at := null; passed_id := null;
        end if;
        if cardinality(retries) > retry_count then
            retry_passed_at := null; retry_passed_id := null;
        end if;
    end if;

    -- End those that must not be called: their time is over, or a lost worker may have made their only attempt.
    overdue := array(select ctid from signaling.outbox
                     where ctid = any (taken) and (claim_id is not null or expires_at <= at));
    if isolates then
        stops_at := clock_timestamp() + interval '500 milliseconds';
    end if;
    select ended.expired, ended.unknown, ended.failed, ended.refused, ended.claimable
    into expired, unknown, failed, refused, claimable from signaling.end_overdue(overdue, at, stops_at) as ended;
    claimable := array(select place from unnest(taken) with ordinality as given (place, nth)
                       where place <> all (overdue) or place = any (claimable) order by nth);
    if isolates then
        if has_refused then
            -- Messages that were refused before come last, because one of them may take the time of all others.
            claimable := array(
                select place from unnest(claimable) with ordinality as given (place, nth) join signaling.outbox on outbox.ctid = place
                order by exists (select from signaling.refused where refused.app = claim.app and message_id = outbox.id), nth);
        end if;
        select keeping.kept, keeping.refused into claimable, refused_count
        from signaling.keep_claimable(claimable, claim_id, claimed_by, at + lease, at, stops_at) as keeping;
        refused := refused + refused_count;
        -- The next claim takes those that were not tested in time. If this one had slots left over, the worker would think
        -- that it has taken everything, and look past these messages.
        done_count := expired + unknown + failed + refused + cardinality(claimable);
        if done_count < cardinality(taken) then
            slots := done_count;
        end if;
    end if;
    claimed_count := cardinality(claimable);

    -- Advance the lane. The next probe of a held lane waits for the outcome of this one, or for the end of its lease.
    next_slot_at := first_slot_at;
    if claimed_count > 0 then
        next_slot_at := first_slot_at + claimed_count * interval '1 second' / rate;
        update signaling.lane
        set next_slot_at = claim.next_slot_at, rate_per_s = rate, rate_at = at,
            hold_until = case when hold is not null then at + lease end,
            probe_claim_id = case when hold is not null then claim.claim_id end,
            probe_target = case when hold is not null then
                               (select coalesce(destination, channel_name) from signaling.outbox where ctid = claimable[1]) end,
            generation = generation + (random() < 0.02)::integer
        where ctid = locked.place;
    end if;

    -- Tell the worker how long it may sleep.
    if slots = 0 or cardinality(taken) < slots then
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
        wakeup := signaling.want_wakeup(app, case when slots > 0 then cardinality(taken) < slots end, at);
    end if;
    throttled_per_s := case when rate < signaling.slot_rate(locked.limit_per_s) then rate end;

    -- Claim the messages, and return them. The slots of retries lie between those of first attempts: if first attempts fail
    -- and retries do not, a worker sees that at once, and does not take the API for dead.
    return query
    with of_kinds as materialized (
        select ctid as place, due_at, is_retry,
               row_number() over kind_by_age - 0.5 as rank, count(*) over (partition by is_retry) as count
        from signaling.outbox, lateral (select sent_at is not null or claim_id is not null as is_retry) as kind
        where ctid = any (claimable)
        window kind_by_age as (partition by is_retry order by due_at, id)
    ), due as materialized (
        select place, due_at, is_retry, row_number() over (order by rank / count, due_at) - 1 as nth from of_kinds
    )
    update signaling.outbox
    set claim_id = claim.claim_id, claimed_by = claim.claimed_by, due_at = at + lease,
        attempts = attempts + (claim_id is not null)::integer
    from due where outbox.ctid = due.place
    returning null::timestamptz, null::integer, null::text, null::timestamptz, null::double precision, null::integer,
              null::integer, null::integer, null::integer, null::timestamptz, null::timestamptz, null::text,
              null::timestamptz, null::bigint, null::timestamptz, null::bigint, null::interval, id, sender,
              destination, channel_name,
              payload, wait_for_ack, enable_offline_messaging, enable_historical_messaging, attempts, uncharged,
              failing_since, max_attempts, at_most_once, expires_at, traceparent, due.is_retry, created_at, due.due_at,
              first_slot_at + due.nth * interval '1 second' / rate;
    get diagnostics written_count = row_count;

    -- A trigger may skip an update without an error. Without a note, such messages would take each claim's slots.
    if written_count < claimed_count then
        perform signaling.refuse(
            array(select ctid from signaling.outbox
                  where ctid = any (claimable) and claim_id is distinct from claim.claim_id), at, null, null);
        refused := refused + claimed_count - written_count;
    end if;
    -- Forget messages that are claimed again, or that are not pending any more.
    if has_refused then
        delete from signaling.refused where ctid = any (array(
            select refused.ctid from signaling.refused
            where refused.app = claim.app and retry_at <= at
              and not exists (select from signaling.outbox
                              where outbox.id = message_id and status = 'pending'
                                and claim_id is distinct from claim.claim_id)
            limit 1000));
    end if;
    return next;
end
$$;
