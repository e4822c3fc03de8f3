-- Hands an app over to another environment, in a database that was copied. The caller decides whether to cancel or to send
-- the pending messages. Changes nothing if the app belongs to that environment already.
--
-- environment      the WORKER_ENVIRONMENT of the workers that send its messages from now on; null: workers without one
-- cancels_pending  cancels pending messages, also messages that workers of the other environment had claimed
-- max_rows         cancels at most so many messages: the caller repeats the call until `is_done`
--
-- Returns an object: `is_done`, whether the app belongs to the environment now; `previous`, the environment before; how many
-- messages this call has `cancelled`; how many are `pending`, counted up to a million.
-- Fails while a worker of the other environment serves the app, because that worker would lose its messages.
-- Locks the lane's row and the messages that it cancels.
-- Indexes: lane_pkey, outbox_first_attempts, outbox_retries; then it reaches messages by their ctid.
create or replace function signaling.adopt(
    app text, environment text, cancels_pending boolean, max_rows bigint default 5000
) returns jsonb
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on set jit = off
as $$
#variable_conflict use_column
declare
    lane signaling.lane;
    other record;
    places tid[];
    cancelled bigint := 0;
    is_done boolean := true;
    at timestamptz;
begin
    perform signaling.refuse_unknown_app(app);
    if cancels_pending is null then
        raise exception 'cancels_pending is null: pass true to cancel the pending messages, false to send them'
            using errcode = 'invalid_parameter_value';
    end if;
    select * into lane from signaling.lane where app = adopt.app for no key update;
    at := clock_timestamp();
    if lane.environment is distinct from adopt.environment then
        select name, environment into other from signaling.worker_liveness
        where is_alive and adopt.app = any (apps) and environment is not distinct from lane.environment
        order by seen_at desc limit 1;
        if found then
            raise exception 'the worker % of the environment % serves the app %, and was alive within 30 seconds',
                            other.name, coalesce(other.environment, '(none)'), app
                using errcode = 'invalid_parameter_value',
                      hint = 'if this is a copy of a database, try again in 30 seconds; else the app is not yours to adopt';
        end if;
        if cancels_pending then
            places := array(
                select ctid from signaling.outbox
                where app = adopt.app and status = 'pending' and sent_at is null and claim_id is null
                order by due_at, id limit max_rows for no key update);
            places := places || array(
                select ctid from signaling.outbox
                where app = adopt.app and status = 'pending' and (sent_at is not null or claim_id is not null)
                order by due_at, id limit max_rows - cardinality(places) for no key update);
            perform signaling.log_lost_attempts(places);
            update signaling.outbox
            set status = 'cancelled', finished_at = clock_timestamp(),
                attempts = attempts + (claim_id is not null)::integer,
                error = case when claim_id is not null then 'cancelled: ' || signaling.lost_text()
                             else coalesce(error, 'cancelled: it belonged to '
                                 || coalesce('the environment ' || lane.environment, 'no environment')) end
            where ctid = any (places);
            cancelled := cardinality(places);
            is_done := cancelled < max_rows;
        end if;
        if is_done then
            -- The hold and the rate came from calls of the other environment. An operator's pause and limit stay. Slots that
            -- the old workers still have lie less than a second ahead.
            update signaling.lane
            set environment = adopt.environment, next_slot_at = at + interval '1 second',
                rate_per_s = signaling.slot_rate(limit_per_s), rate_at = at, throttled_at = null,
                retry_after_until = null, hold = null, hold_reason = null, hold_since = null, hold_until = null,
                hold_probes = 0, probe_claim_id = null, probe_target = null, released_at = null
            where app = adopt.app;
            -- A copy lists the source's workers, which an operator would take for dead ones.
            delete from signaling.worker
            where environment is distinct from adopt.environment
              and worker_id in (select worker_id from signaling.worker_liveness where not is_alive);
            perform signaling.wake_workers(app);
        end if;
    end if;
    return jsonb_build_object('is_done', is_done, 'previous', lane.environment, 'cancelled', cancelled,
                              'pending', signaling.count_pending(app));
end
$$;
