-- Figures: what happened, by the minute, and what waits, without a look at the whole outbox.
--
-- Takes no lock on a table that was there before, so nobody waits for it. With an outbox of 3.5 million rows it took 75 ms on a busy machine.

-- What an app's workers did in a minute. They add to it once a second, so it lags by that, and what a worker had not
-- added yet when it was killed is missing.
create table signaling.rollup (
    minute             timestamptz not null,
    app                text        not null,
    message_sent       bigint      not null default 0,
    message_delivered  bigint      not null default 0,
    message_offline    bigint      not null default 0,
    failed             bigint      not null default 0,
    expired            bigint      not null default 0,
    unknown            bigint      not null default 0,
    calls_retry        bigint      not null default 0,
    calls_throttled    bigint      not null default 0,
    calls_rejected     bigint      not null default 0,
    calls_unauthorized bigint      not null default 0,
    calls_ambiguous    bigint      not null default 0,
    slots_missed       bigint      not null default 0,
    call_time          bigint[]    not null default '{}',
    delay              bigint[]    not null default '{}',
    backlog            bigint,
    primary key (minute, app)
)
-- Each row is written some hundred times: its versions stay on one page.
with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.rollup is
    'What the workers of an app did in a minute, kept for 8 days. A little behind, and not exact where a worker is killed.';
comment on column signaling.rollup.message_sent is
    'Messages that ended so, one call each; message_delivered and message_offline likewise.';
comment on column signaling.rollup.failed is
    'Messages that ended so; expired and unknown likewise. What people cancel is not counted.';
comment on column signaling.rollup.calls_retry is
    'Calls with this outcome, as in signaling.attempt; the other calls_ columns likewise.';
comment on column signaling.rollup.call_time is
    'How many calls took how long: up to 1, 2, 5, 10, 20, 50, 100, 200, 500 ms, 1, 2, 5, 10, 20 s, 1, 5, 30, 60 min, and longer.';
comment on column signaling.rollup.delay is
    'How many messages waited how long for their first call, from their insert or when they were due: as call_time.';
comment on column signaling.rollup.backlog is 'Messages that waited at the last count of this minute: queued and retrying.';

-- What waits, by app, as it was counted last.
create table signaling.census (
    app       text   primary key,
    queued    bigint not null,
    scheduled bigint not null,
    retrying  bigint not null,
    sending   bigint not null,
    oldest_at timestamptz
)
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.census is
    'Pending messages by app and state, as they were last counted: see census_turn. Of apps that no worker has served yet, the first 100.';
comment on column signaling.census.oldest_at is
    'Since when the oldest one waits that is not scheduled: when it was due; if it was called before, when it was inserted.';

-- When the last count was, and how long it took. One row: one session counts at a time.
create table signaling.census_turn (
    is_the_only_row boolean     primary key default true,
    counted_at      timestamptz not null default 'epoch',
    took            interval    not null default '0',

    constraint census_turn_has_one_row check (is_the_only_row)
)
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
insert into signaling.census_turn default values;

comment on table signaling.census_turn is 'When signaling.take_census() last counted, and how long that took.';

-- Counts what waits, unless that was done less than `stale_after` ago, or fifty times as long ago as it took: so
-- counting takes a fiftieth of one connection's time at most, however much waits. Whoever comes while another one
-- counts does not wait for that. True if it counted.
--
-- It goes through the two indexes of what is pending, and nothing else: finished messages cost it nothing.
create function signaling.take_census(stale_after interval default '0') returns boolean
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off set enable_bitmapscan = off set jit = off set max_parallel_workers_per_gather = 0
as $$
declare
    began timestamptz := clock_timestamp();
begin
    perform from signaling.census_turn
    where is_the_only_row and counted_at + greatest(stale_after, took * 50) <= began
    for update skip locked;
    if not found then
        return false;
    end if;
    -- If the server crashes, what it forgets of this is counted again.
    perform set_config('synchronous_commit', 'off', true);

    with fresh as (
        select app, count(*) filter (where due_at <= began) as queued, count(*) filter (where due_at > began) as scheduled,
               min(due_at) filter (where due_at <= began) as oldest_at
        from signaling.outbox
        where status = 'pending' and sent_at is null and claim_id is null
        group by app
    ), again as (
        select app, count(*) filter (where claim_id is not null and due_at > began) as sending,
               count(*) filter (where claim_id is null or due_at <= began) as retrying,
               min(created_at) as oldest_at
        from signaling.outbox
        where status = 'pending' and (sent_at is not null or claim_id is not null)
        group by app
    ), counted as (
        -- Apps that have nothing pending any more are known by their lanes.
        select app, coalesce(queued, 0) as queued, coalesce(scheduled, 0) as scheduled, coalesce(retrying, 0) as retrying,
               coalesce(sending, 0) as sending, least(fresh.oldest_at, again.oldest_at) as oldest_at
        from signaling.lane left join fresh using (app) left join again using (app)
        -- Apps that no worker has served yet may be mistakes of any number.
        union all
        (select app, coalesce(queued, 0), coalesce(scheduled, 0), coalesce(retrying, 0), coalesce(sending, 0),
                least(fresh.oldest_at, again.oldest_at)
         from fresh full join again using (app)
         where not exists (select from signaling.lane where lane.app = coalesce(fresh.app, again.app))
         order by app
         limit 100)
    ), gone as (
        delete from signaling.census where app <> all (select app from counted)
    ), written as (
        insert into signaling.census (app, queued, scheduled, retrying, sending, oldest_at)
        select app, queued, scheduled, retrying, sending, oldest_at from counted order by app
        on conflict (app) do update
        set queued = excluded.queued, scheduled = excluded.scheduled, retrying = excluded.retrying,
            sending = excluded.sending, oldest_at = excluded.oldest_at
        -- Where nothing happens, nothing is written.
        where (census.queued, census.scheduled, census.retrying, census.sending, census.oldest_at)
            is distinct from (excluded.queued, excluded.scheduled, excluded.retrying, excluded.sending, excluded.oldest_at)
    )
    insert into signaling.rollup (minute, app, backlog)
    select date_trunc('minute', began), app, queued + retrying from counted
    where exists (select from signaling.lane where lane.app = counted.app)
    order by app
    on conflict (minute, app) do update set backlog = excluded.backlog where rollup.backlog is distinct from excluded.backlog;

    delete from signaling.rollup where minute < began - interval '8 days';
    update signaling.census_turn set counted_at = began, took = clock_timestamp() - began where is_the_only_row;
    return true;
end
$$;
comment on function signaling.take_census is 'Counts pending messages into signaling.census, unless that was done lately.';
revoke all on function signaling.take_census from public;

-- Roles that work as an older version let them go on to: who claims messages writes the figures, too, and who may read
-- the lanes reads them.
do $$
declare
    needed record;
begin
    for needed in
        select gift.what, case when holder.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(holder.grantee)) end as who
        from (values
                  ('signaling.outbox'::regclass, 'claim_id', 'UPDATE',
                   'select, insert (minute, app, message_sent, message_delivered, message_offline, failed, expired, unknown, calls_retry, calls_throttled,
                                    calls_rejected, calls_unauthorized, calls_ambiguous, slots_missed, call_time, delay),
                    update (message_sent, message_delivered, message_offline, failed, expired, unknown, calls_retry, calls_throttled,
                            calls_rejected, calls_unauthorized, calls_ambiguous, slots_missed, call_time, delay)
                    on signaling.rollup'),
                  ('signaling.outbox', 'claim_id', 'UPDATE', 'execute on function signaling.take_census'),
                  ('signaling.lane', 'app', 'SELECT', 'select on signaling.rollup, signaling.census, signaling.census_turn'),
                  ('signaling.lane', 'app', 'SELECT', 'execute on function signaling.take_census')
             ) as gift (relation, column_name, privilege, what)
        join pg_class on pg_class.oid = gift.relation
        join pg_attribute on attrelid = gift.relation and attname = gift.column_name
        cross join lateral (
            select grantee from aclexplode(relacl) where privilege_type = gift.privilege
            union
            select grantee from aclexplode(attacl) where privilege_type = gift.privilege
            union
            select oid from pg_roles where rolname = 'pg_write_all_data' and gift.privilege = 'UPDATE'
        ) as holder
        where holder.grantee <> relowner
    loop
        execute format('grant %s to %s', needed.what, needed.who);
    end loop;
end
$$;
