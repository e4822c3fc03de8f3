-- The workers of the fleet, and what each of them has seen of each app's calls.

create table signaling.worker (
    worker_id  uuid        primary key,
    name       text        not null,
    version    text        not null,
    host       text        not null,
    apps       text[]      not null,
    started_at timestamptz not null,
    seen_at    timestamptz not null
)
-- Each worker writes its row every few seconds: the versions stay on one page, and are cleaned up there.
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.worker is
    'The running workers. A worker that stops deletes its row; one that has died is alive no more 30 seconds after seen_at.';

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
    'The worker''s calls fail, and it waits to see how the calls of other workers go.';
comment on column signaling.worker_app.stepped_aside_at is
    'Since when the worker leaves this app to the others, because its own calls fail while theirs are accepted. Null: it serves the app.';

-- The workers as a person wants to read them: a row for each worker and app that it serves.
create view signaling.fleet as
select worker_id, name, host, version, app, seen_at > statement_timestamp() - interval '30 seconds' as is_alive,
       started_at, seen_at, coalesce(accepted, 0) as accepted, coalesce(failed, 0) as failed,
       coalesce(is_doubting, false) as is_doubting, stepped_aside_at, stepped_aside_reason
from signaling.worker cross join unnest(worker.apps) as served (app)
     left join signaling.worker_app using (worker_id, app);

comment on view signaling.fleet is
    'The workers, by app: which are alive, and which have stepped aside, since when and why.';
