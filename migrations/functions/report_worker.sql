-- Registers that a worker is alive, with its counters of some apps. Returns the counters of the other workers of these apps.
-- A worker whose calls fail compares them with its own, to find out whether the API or the worker itself is at fault.
--
-- name, version, host   informational
-- served         all apps of the worker
-- environment    the worker's environment: workers of another one do not send this worker's messages
-- apps           the apps of these counters; the next arrays have the same order
-- accepted       messages that the API has accepted since the worker was started
-- failed         attempts that failed since then
-- doubting       the worker's calls fail, and it is finding out whether the API or the worker itself is at fault
-- aside_reasons  why the worker has stepped aside; null: the worker serves the app
--
-- Returns a row for each app: how many messages of the other workers the API has accepted, and how many other workers serve
-- the app. These are alive, have the same environment, do not doubt, and have not stepped aside. The number of accepted
-- messages grows, except when a worker that stops deletes its counters.
-- Locks the rows of this worker. Deletes workers that have not been seen for a day; skips rows that are locked.
-- Indexes: worker_pkey, worker_app_pkey.
create or replace function signaling.report_worker(
    worker_id uuid, name text, version text, host text, served text[], apps text[], accepted bigint[], failed bigint[],
    doubting boolean[], aside_reasons text[], environment text default null
) returns table (app text, others_accepted bigint, others integer)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set enable_seqscan = off set jit = off
as $$
#variable_conflict use_column
declare
    at constant timestamptz := clock_timestamp();
begin
    perform signaling.assert_session();
    insert into signaling.worker (worker_id, name, version, environment, host, apps, started_at, seen_at)
    values (worker_id, name, version, environment, host, served, at, at)
    on conflict on constraint worker_pkey do update set seen_at = at;

    insert into signaling.worker_app as kept
           (app, worker_id, accepted, failed, is_doubting, stepped_aside_at, stepped_aside_reason)
    select given.app, report_worker.worker_id, given.accepted, given.failed, given.is_doubting,
           case when given.aside_reason is not null then at end, given.aside_reason
    from unnest(apps, report_worker.accepted, report_worker.failed, doubting, aside_reasons)
             as given (app, accepted, failed, is_doubting, aside_reason)
    on conflict on constraint worker_app_pkey do update
    set accepted = excluded.accepted, failed = excluded.failed, is_doubting = excluded.is_doubting,
        stepped_aside_at = case when excluded.stepped_aside_at is not null
                                then coalesce(kept.stepped_aside_at, excluded.stepped_aside_at) end,
        stepped_aside_reason = excluded.stepped_aside_reason
    where (kept.accepted, kept.failed, kept.is_doubting, kept.stepped_aside_reason)
          is distinct from (excluded.accepted, excluded.failed, excluded.is_doubting, excluded.stepped_aside_reason);

    if random() < 0.01 then
        delete from signaling.worker where worker_id in (
            select worker_id from signaling.worker where seen_at < at - interval '1 day' for update skip locked);
    end if;

    -- One lookup for each app: the worker reads no rows of other apps. The accepted messages of dead workers count. Otherwise
    -- the sum would shrink when a worker dies, which would hide newly accepted messages, and jump when a worker returns, which
    -- a reader would take for newly accepted messages.
    return query
    select asked.app, other.accepted, other.serving
    from unnest(apps) as asked (app)
    cross join lateral (
        select coalesce(sum(accepted), 0)::bigint as accepted,
               (count(*) filter (where is_alive and not is_doubting and stepped_aside_at is null
                                   and reporter.environment is not distinct from report_worker.environment))::integer
                   as serving
        from signaling.worker_app join signaling.worker_liveness as reporter using (worker_id)
        where worker_app.app = asked.app and worker_app.worker_id <> report_worker.worker_id
    ) as other;
end
$$;
