-- The workers of the fleet, and what each of them has seen of each app's calls; and the views for people.

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
-- Each worker writes its row every few seconds: the versions stay on one page, and are cleaned up there.
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.worker is
    'The running workers. A worker that stops deletes its row; one that has died is alive no more 30 seconds after seen_at.';

comment on column signaling.worker.environment is 'Its WORKER_ENVIRONMENT: see signaling.lane.';

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
-- Serves the deletion of workers.
create index worker_app_worker on signaling.worker_app (worker_id);

comment on table signaling.worker_app is 'How the calls of each worker went, by app, since the worker was started.';
comment on column signaling.worker_app.accepted is 'Messages that the API has accepted from this worker.';
comment on column signaling.worker_app.failed is 'Attempts of this worker that failed, of whatever kind.';
comment on column signaling.worker_app.is_doubting is
    'The worker''s calls fail, and it is finding out whether the API or the worker itself is at fault.';
comment on column signaling.worker_app.stepped_aside_at is
    'Since when the worker leaves this app to the others, because its own calls fail while theirs are accepted. Null: it serves the app.';

-- The workers as a person wants to read them: a row for each worker and app that it serves.
create view signaling.fleet as
select worker_id, name, host, version, environment, app,
       abs(extract(epoch from statement_timestamp() - seen_at)) < 30 as is_alive,
       started_at, seen_at, coalesce(accepted, 0) as accepted, coalesce(failed, 0) as failed,
       coalesce(is_doubting, false) as is_doubting, stepped_aside_at, stepped_aside_reason
from signaling.worker cross join unnest(worker.apps) as served (app)
     left join signaling.worker_app using (worker_id, app);

comment on view signaling.fleet is
    'The workers, by app: which are alive, and which have stepped aside, since when and why.';

-- The row as a person wants to read it.
create view signaling.delivery as
select id, app, sender, destination, channel_name, status,
       case when status <> 'pending' then status
            when claim_id is not null and due_at > statement_timestamp() then 'sending'
            when sent_at is not null or attempts > 0 then 'retrying'
            when due_at > statement_timestamp() then 'scheduled'
            else 'queued'
       end as state,
       case when status = 'pending' and claim_id is null then due_at end as next_attempt_at,
       case when status = 'pending' then coalesce((
           select case when paused_at is not null then 'an operator: ' || paused_by || ' has paused the app'
                       when not exists (select from signaling.fleet where is_alive and fleet.app = outbox.app)
                           then 'a worker: none is alive that serves the app'
                       when not exists (select from signaling.fleet
                                        where is_alive and fleet.app = outbox.app
                                          and fleet.environment is not distinct from lane.environment)
                           then 'an operator: the app belongs to '
                                || coalesce('the environment ' || lane.environment, 'no environment')
                                || ', and the workers that are alive belong to another one (worker adopt)'
                       when hold = 'unauthorized' then 'the credentials: the API refuses them'
                       when hold = 'unavailable' then 'the API: it fails or can''t be reached'
                       when retry_after_until > statement_timestamp() then 'the API: it has asked for a pause'
                       when claim_id is not null and due_at > statement_timestamp() then 'the worker that has claimed it'
                       when claim_id is not null then 'another worker: the lease of the last one has ended'
                       when due_at > statement_timestamp() then 'its due time'
                       else 'the next free slot of the app' end
           from signaling.lane where lane.app = outbox.app), 'a worker: none has served the app yet')
       end as waits_for,
       -- These read signaling.attempt only where a query asks for them.
       (select attempt.fault from signaling.attempt where message_id = outbox.id order by attempt.id desc limit 1) as fault,
       (select attempt.charged from signaling.attempt where message_id = outbox.id order by attempt.id desc limit 1) as charged,
       (select attempt.evidence from signaling.attempt where message_id = outbox.id order by attempt.id desc limit 1) as evidence,
       coalesce(finished_at, statement_timestamp()) - created_at as age,
       attempts, max_attempts, uncharged, http_status, error, request_id,
       created_at, sent_at, finished_at, expires_at, wait_for_ack, at_most_once, dedupe_key, claimed_by, payload
from signaling.outbox;

comment on view signaling.delivery is
    'The outbox for people: state is scheduled, queued, sending, retrying, or the final status. fault, charged and evidence are those of the last attempt that failed.';

-- The row without its content: without payload, and without dedupe_key, which may be made of content. A view, so that
-- `select *` works, and that a column which comes later has to be let in.
create view signaling.delivery_status as
select id, app, sender, destination, channel_name, status, state, next_attempt_at, waits_for, fault, charged, evidence, age,
       attempts, max_attempts, uncharged, http_status, error, request_id,
       created_at, sent_at, finished_at, expires_at, wait_for_ack, at_most_once, claimed_by
from signaling.delivery;

comment on view signaling.delivery_status is
    'What becomes of messages, without their content: signaling.delivery without payload and dedupe_key.';
