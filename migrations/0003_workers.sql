-- The registry of workers with their counters, and the views for operators.

create table signaling.worker (
    worker_id  uuid        primary key,
    name       text        not null,
    version    text        not null,
    host       text        not null,
    apps       text[]      not null,
    started_at timestamptz not null,
    seen_at    timestamptz not null,
    environment text
)
-- Each worker writes its row every few seconds. Free space keeps the versions on one page.
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.worker is
    'The running workers. A worker that stops deletes its row. A worker counts as dead 30 seconds after seen_at.';

comment on column signaling.worker.environment is 'The worker''s WORKER_ENVIRONMENT: see signaling.lane.';

-- One row for each worker and app. Only that worker writes it, at most once a second.
create table signaling.worker_app (
    app             text        not null,
    worker_id       uuid        not null references signaling.worker on delete cascade,
    accepted        bigint      not null default 0,
    failed          bigint      not null default 0,
    is_doubting     boolean     not null default false,
    stepped_aside_at timestamptz,
    stepped_aside_reason text,
    primary key (app, worker_id)
)
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
-- For the deletion of workers.
create index worker_app_worker on signaling.worker_app (worker_id);

comment on table signaling.worker_app is 'Counters of each worker by app, since the worker started.';
comment on column signaling.worker_app.accepted is 'Messages that the API has accepted from this worker.';
comment on column signaling.worker_app.failed is 'Failed attempts of this worker.';
comment on column signaling.worker_app.is_doubting is
    'The worker''s calls fail, and the worker is finding out whether the API or the worker itself is at fault.';
comment on column signaling.worker_app.stepped_aside_at is
    'When the worker stepped aside, because its calls fail while the API accepts those of other workers. Null: it serves the app.';

-- The rule by which a worker is alive. The seen_at of a live worker lies in the future after the clock was set back.
create view signaling.worker_liveness as
select worker.*, abs(extract(epoch from statement_timestamp() - seen_at)) < 30 as is_alive
from signaling.worker;

comment on view signaling.worker_liveness is 'The workers, with whether each one is alive.';

-- A row for each worker and each app that it serves.
create view signaling.fleet as
select worker_id, name, host, version, environment, app, is_alive, started_at, seen_at, coalesce(accepted, 0) as accepted, coalesce(failed, 0) as failed,
       coalesce(is_doubting, false) as is_doubting, stepped_aside_at, stepped_aside_reason
from signaling.worker_liveness cross join unnest(apps) as served (app)
     left join signaling.worker_app using (worker_id, app);

comment on view signaling.fleet is
    'The workers by app: whether each is alive, and whether, when and why it stepped aside.';

-- Obstacles that keep an app from sending; obstacles that an operator can remove come first. Commands, pages and functions
-- all read this view, so that they show the same order and sentences.
create view signaling.obstacle as
select app, rank, kind,
       case kind when 'paused' then 'an operator: ' || paused_by || ' has paused the app'
                 when 'no_worker' then 'a worker: none is alive that serves the app'
                 when 'other_environment' then 'an operator: the app belongs to ' || owner
                                               || ', and the workers that are alive belong to another one (worker adopt)'
                 when 'unauthorized' then 'the credentials: the API refuses them'
                 when 'unavailable' then 'the API: it fails or can''t be reached'
                 when 'retry_after' then 'the API: it has asked for a pause' end as waits_for,
       case kind when 'paused' then 'the app is paused by ' || paused_by || ' since ' || since || coalesce(': ' || pause_reason, '')
                                    || '; `worker resume ' || app || '` ends the pause'
                 when 'no_worker' then 'no worker that serves the app is alive: start a worker; if one should be running, its log says why it ended'
                 when 'other_environment' then 'the app belongs to ' || owner || ', and the workers that are alive belong to another one'
                                               || ': start workers of its environment, or take the app over with `worker adopt`'
                 when 'unauthorized' then 'the app is unauthorized since ' || since || ', because the API refuses its credentials ('
                                          || coalesce(hold_reason, 'no reason is known') || '): correct them. One message is tried every few seconds'
                 when 'unavailable' then 'the app is unavailable since ' || since || ', because the API fails or can''t be reached ('
                                         || coalesce(hold_reason, 'no reason is known') || '). One message is tried every few seconds'
                 when 'retry_after' then 'the app makes no call before ' || since || ', as the API asked; `worker resume ' || app
                                         || '` ends the wait' end as sentence
from signaling.lane cross join lateral (values
         (1, 'paused', paused_at, paused_at is not null),
         (2, 'no_worker', null, not exists (select from signaling.fleet where is_alive and fleet.app = lane.app)),
         (3, 'other_environment', null,
             exists (select from signaling.fleet where is_alive and fleet.app = lane.app)
             and not exists (select from signaling.fleet
                             where is_alive and fleet.app = lane.app and fleet.environment is not distinct from lane.environment)),
         (4, 'unauthorized', hold_since, hold = 'unauthorized'),
         (5, 'unavailable', hold_since, hold = 'unavailable'),
         (6, 'retry_after', retry_after_until, retry_after_until > statement_timestamp())
     ) as obstacles (rank, kind, at, is_there)
     -- to_char returns nothing for infinity.
     cross join lateral coalesce(to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), at::text) as since
     cross join lateral coalesce('the environment ' || lane.environment, 'no environment') as owner
where is_there;

comment on view signaling.obstacle is
    'Obstacles that keep an app from sending, by rank: a row for each pause, hold, wait, and lack of a worker of its environment. Without a row, the app sends due messages.';
comment on column signaling.obstacle.kind is 'paused, no_worker, other_environment, unauthorized, unavailable or retry_after.';

-- The outbox for operators and producers.
create view signaling.delivery as
select id, app, sender, destination, channel_name, status,
       case when status <> 'pending' then status
            when claim_id is not null and due_at > statement_timestamp() then 'sending'
            when sent_at is not null or attempts > 0 then 'retrying'
            when due_at > statement_timestamp() then 'scheduled'
            else 'queued'
       end as state,
       case when status = 'pending' and claim_id is null then due_at end as next_attempt_at,
       case when status = 'pending' then coalesce(
           (select waits_for from signaling.obstacle where obstacle.app = outbox.app order by rank limit 1),
           case when not exists (select from signaling.lane where lane.app = outbox.app)
                    then 'a worker: none has served the app yet' end,
           (select 'the database: a trigger or a constraint refuses to change it'
                   || coalesce(' (' || nullif(concat_ws(' ', code, constraint_name), '') || ')', '')
            from signaling.refused
            where refused.app = outbox.app and message_id = outbox.id and retry_at > statement_timestamp()),
           case when claim_id is not null and due_at > statement_timestamp() then 'the worker that has claimed it'
                when claim_id is not null then 'another worker: the lease of the last one has ended'
                when due_at > statement_timestamp() then 'its due time'
                else 'the next free slot of the app' end)
       end as waits_for,
       -- Subqueries: a query that does not select these columns does not read signaling.attempt.
       (select attempt.fault from signaling.attempt where message_id = outbox.id order by attempt.id desc limit 1) as fault,
       (select attempt.charged from signaling.attempt where message_id = outbox.id order by attempt.id desc limit 1) as charged,
       (select attempt.evidence from signaling.attempt where message_id = outbox.id order by attempt.id desc limit 1) as evidence,
       coalesce(finished_at, statement_timestamp()) - created_at as age,
       attempts, max_attempts, uncharged, http_status, error, request_id,
       created_at, sent_at, finished_at, expires_at, wait_for_ack, at_most_once, dedupe_key, claimed_by, payload,
       case when status = 'pending' then
           (select retry_at from signaling.refused
            where refused.app = outbox.app and message_id = outbox.id and retry_at > statement_timestamp())
       end as refused_until
from signaling.outbox;

comment on view signaling.delivery is
    'The outbox, readable: state is scheduled, queued, sending, retrying, or the final status. fault, charged and evidence belong to the last failed attempt.';

-- The outbox without payload, and without dedupe_key, which producers may derive from the payload. With a view, `select *`
-- works, and a new column stays hidden until it is added here.
create view signaling.delivery_status as
select id, app, sender, destination, channel_name, status, state, next_attempt_at, waits_for, fault, charged, evidence, age,
       attempts, max_attempts, uncharged, http_status, error, request_id,
       created_at, sent_at, finished_at, expires_at, wait_for_ack, at_most_once, claimed_by, refused_until
from signaling.delivery;

comment on view signaling.delivery_status is
    'State and outcome of messages without their content: signaling.delivery without payload and dedupe_key.';
