-- The lane slows down, stands still and comes back, for the whole fleet: its state is on its row. People steer it by
-- the functions below; `worker pause`, `resume`, `limit`, `retry` and `cancel` call nothing else.

alter table signaling.lane
    add column configured_per_s double precision,
    add column limit_set_by     text,
    add column limit_set_at     timestamptz,
    add column rate_at          timestamptz not null default 'epoch',
    add column throttled_at     timestamptz,
    add column probe_claim_id   uuid,
    add column paused_at        timestamptz,
    add column paused_by        text,
    add column pause_reason     text,
    add constraint a_pause_needs_who_and_when check ((paused_at is null) = (paused_by is null));
update signaling.lane set configured_per_s = limit_per_s;
alter table signaling.lane alter column configured_per_s set not null;

comment on column signaling.lane.limit_per_s is
    'Calls a second that go out at most: what the workers are configured with, or what signaling.set_limit() said.';
comment on column signaling.lane.configured_per_s is 'The limit that the worker which started last is configured with.';
comment on column signaling.lane.limit_set_by is 'Who set another limit than the configured one. Null: nobody.';
comment on column signaling.lane.rate_per_s is
    'Slots a second as of rate_at. A 429 cuts it; then it climbs back by 5 % a second, see signaling.present_rate().';
comment on column signaling.lane.throttled_at is 'When a burst of 429s last cut the rate.';
comment on column signaling.lane.next_slot_at is
    'The next send slot that nobody has taken. Far ahead while the API has asked for a pause by Retry-After.';
comment on column signaling.lane.probe_claim_id is
    'The claim that probes a held lane: the fence for what its outcome does to the hold.';
comment on column signaling.lane.paused_at is 'Since when a person keeps the app from sending. Null: not paused.';

-- Slots a second for a limit of calls in any sliding second: below it by the lateness that calls may have.
create function signaling.slot_rate(limit_per_s double precision) returns double precision
    language sql immutable parallel safe set search_path = ''
as $$ select limit_per_s / 1.02 $$;

-- Slots a second at a time: the rate climbs by 5 % a second from where the last cut, or the last claim, left it.
create function signaling.present_rate(
    rate_per_s double precision, rate_at timestamptz, limit_per_s double precision, at timestamptz
) returns double precision
    language sql immutable parallel safe set search_path = ''
as $$
    select least(signaling.slot_rate(limit_per_s),
                 rate_per_s * power(1.05, least(greatest(extract(epoch from at - rate_at), 0), 300))::double precision)
$$;

create function signaling.refuse_unknown_app(app text) returns void
    language plpgsql set search_path = ''
as $$
begin
    if not exists (select from signaling.lane where lane.app = $1) then
        raise exception 'there is no app %', coalesce(quote_literal($1), 'null')
            using errcode = 'no_data_found',
                  hint = coalesce('the apps are: ' || (select string_agg(lane.app, ', ' order by lane.app) from signaling.lane),
                                  'no worker has been started yet');
    end if;
end
$$;

-- Keeps an app from sending, on all hosts at once. True if it was sending before.
create function signaling.pause(app text, reason text default null, by text default session_user) returns boolean
    language plpgsql set search_path = ''
as $$
begin
    perform signaling.refuse_unknown_app($1);
    update signaling.lane set paused_at = clock_timestamp(), paused_by = coalesce($3, session_user), pause_reason = $2
    where lane.app = $1 and paused_at is null;
    return found;
end
$$;
comment on function signaling.pause is 'Keeps an app from sending, on all hosts at once. Says whether that is news.';

-- Lets a paused app send again. It does not end a hold, which ends when the API answers. True if it was paused.
create function signaling.resume(app text) returns boolean
    language plpgsql set search_path = ''
as $$
begin
    perform signaling.refuse_unknown_app($1);
    update signaling.lane set paused_at = null, paused_by = null, pause_reason = null
    where lane.app = $1 and paused_at is not null;
    if found then
        perform pg_notify('signaling_bell', $1);
        return true;
    end if;
    return false;
end
$$;
comment on function signaling.resume is 'Lets a paused app send again. Says whether that is news.';

-- Sets an app's limit of calls a second, for running workers and for those that start later. Null: the configured
-- one again. True if that changes something.
create function signaling.set_limit(app text, calls_per_s double precision, by text default session_user) returns boolean
    language plpgsql set search_path = ''
as $$
declare
    old signaling.lane;
    moment timestamptz;
    new_limit double precision;
begin
    perform signaling.refuse_unknown_app($1);
    select * into old from signaling.lane where lane.app = $1 for update;
    moment := clock_timestamp();
    new_limit := coalesce($2, old.configured_per_s);
    if new_limit = old.limit_per_s and ($2 is null) = (old.limit_set_by is null) then
        return false;
    end if;
    update signaling.lane
    set limit_per_s = new_limit,
        limit_set_by = case when $2 is not null then coalesce($3, session_user) end,
        limit_set_at = case when $2 is not null then moment end,
        -- Full pace stays full pace; a lane that a 429 has slowed climbs on from where it is.
        rate_per_s = case
            when signaling.present_rate(old.rate_per_s, old.rate_at, old.limit_per_s, moment)
                 >= signaling.slot_rate(old.limit_per_s)
            then signaling.slot_rate(new_limit)
            else signaling.present_rate(old.rate_per_s, old.rate_at, new_limit, moment) end,
        rate_at = moment
    where lane.app = $1;
    perform pg_notify('signaling_bell', $1);
    return true;
end
$$;
comment on function signaling.set_limit is
    'Sets an app''s limit of calls a second on all hosts at once; null: the configured one. Says whether that is news.';

-- Sends finished messages again: those that did not succeed, by what is given; null means any. Every one starts
-- with all its attempts, and no expiry where that is over. Returns how many; with dry_run, how many it would be.
-- They share the lane's slots with other messages, as any message that is called again.
create function signaling.retry(
    app           text default null,
    statuses      text[] default array['failed'],
    since         timestamptz default null,
    until         timestamptz default null,
    error_like    text default null,
    http_statuses integer[] default null,
    ids           bigint[] default null,
    dry_run       boolean default false,
    max_rows      bigint default null
) returns bigint
    language plpgsql set search_path = ''
as $$
declare
    matched bigint;
begin
    if $2 is null or not $2 <@ array['failed', 'expired', 'cancelled', 'unknown'] then
        raise exception 'only messages that are failed, expired, cancelled or unknown can be sent again'
            using errcode = 'invalid_parameter_value';
    end if;
    if $8 then
        select count(*) into matched from (
            select from signaling.outbox
            where ($1 is null or outbox.app = $1) and status = any ($2)
              and ($3 is null or finished_at >= $3) and ($4 is null or finished_at < $4)
              and ($5 is null or error like $5) and ($6 is null or http_status = any ($6))
              and ($7 is null or id = any ($7))
            limit $9) as row;
        return matched;
    end if;
    with chosen as (
        select id from signaling.outbox
        where ($1 is null or outbox.app = $1) and status = any ($2)
          and ($3 is null or finished_at >= $3) and ($4 is null or finished_at < $4)
          and ($5 is null or error like $5) and ($6 is null or http_status = any ($6))
          and ($7 is null or id = any ($7))
        order by id
        limit $9
        for update skip locked
    ), redriven as (
        update signaling.outbox
        set status = 'pending', finished_at = null, attempts = 0, claim_id = null, claimed_by = null,
            due_at = clock_timestamp(),
            expires_at = case when expires_at > clock_timestamp() then expires_at end
        from chosen where outbox.id = chosen.id
        returning outbox.app
    ), rung as (
        select pg_notify('signaling_bell', apps.app) from (select distinct redriven.app from redriven) as apps
    )
    select (select count(*) from redriven) + 0 * (select count(*) from rung) into matched;
    return matched;
end
$$;
comment on function signaling.retry is
    'Sends messages again that failed, expired, were cancelled or are unknown. Returns how many.';

-- The calls of an app that started in a span of time, by the workers' own account.
create function signaling.calls(app text, "from" timestamptz, "to" timestamptz)
    returns table (message_id bigint, sent_at timestamptz)
    language sql stable set search_path = '' set enable_bitmapscan = on
as $$
    select outbox.id, outbox.sent_at from signaling.outbox
    where outbox.app = $1 and outbox.sent_at >= $2 and outbox.sent_at < $3
    -- The last call of a message that did not end well stands in both.
    union
    select attempt.message_id, attempt.sent_at
    from signaling.attempt join signaling.outbox on outbox.id = attempt.message_id
    where outbox.app = $1 and attempt.sent_at >= $2 and attempt.sent_at < $3
$$;
comment on function signaling.calls is 'The calls of an app that started between two times.';

-- The most calls of an app that started within any sliding second of a span of time: the proof that the pace held.
create function signaling.peak_rate(app text, "from" timestamptz, "to" timestamptz) returns bigint
    language sql stable set search_path = ''
as $$
    select coalesce(max(calls), 0) from (
        select count(*) over (order by sent_at range between interval '999999 microseconds' preceding and current row) as calls
        from signaling.calls($1, $2, $3)
    ) as sliding
$$;
comment on function signaling.peak_rate is
    'The most calls of an app that started within any sliding second between two times, as sent_at tells.';
