-- Deletes some messages that finished longer ago than `retain`, with their attempts: for about as long as `max_time`,
-- and 1,000 of them at most. A pass goes through the outbox by id, over many calls, and rests for a minute at its end.
--
-- No index on finished_at: it would cost every message something. Ids are given out in the order of inserts, so what
-- is old stands at the beginning of the primary key. A pass ends where rows begin that are too young to have finished
-- before; older ones that are pending or finished lately are passed over, and seen again by the next pass.
--
-- It looks at a range of ids at a time, and so also goes in small steps past the index entries of rows that are
-- deleted and not yet vacuumed. In a gap the steps grow with it.
--
-- Only this function deletes, and only final messages older than a minute, so its callers need no right to delete.
--
-- worker         a fresh id of the process
-- retain         how long finished messages stay
-- max_time       about how long this call may take
-- over_before    the caller knows that this time is over: a clock that was set ahead must not make messages old
-- isolates       after a call that did not end in time: deletes each message by itself, and passes over one that a function of
--                the application keeps waiting
--
-- Locks the row of signaling.retention and the messages that it deletes; passes over messages that are locked, or that the
-- database refuses to delete.
-- Index: outbox_pkey.
create or replace function signaling.delete_finished(
    worker   uuid,
    retain   interval,
    max_time interval default interval '5 milliseconds',
    over_before timestamptz default 'infinity',
    isolates boolean default false,
    out has_turn     boolean,
    out is_pass_over boolean,
    out deleted      bigint,
    out held_until   timestamptz,
    out at           timestamptz
)
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp set row_security = off
    -- Plans by the primary key, whatever the statistics say.
    set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    most_rows constant int := 1000;
    rows_a_step constant int := 100;
    ids_a_step constant bigint := 1000;
    lease constant interval := interval '10 seconds';
    rest constant interval := interval '1 minute';
    began timestamptz := clock_timestamp();
    cutoff timestamptz;
    newest_id bigint;
    turn signaling.retention;
    step_end bigint;
    step record;
    young_rows bigint := 0;
    deleted_now bigint := 0;
    deleted_step bigint;
    context text;
begin
    perform signaling.assert_duration('retain', retain);
    perform signaling.assert_duration('max_time', max_time);
    if retain < interval '1 minute' then
        raise exception 'messages are kept for at least 1 minute after they have finished'
            using errcode = 'invalid_parameter_value';
    end if;
    perform signaling.assert_session();
    cutoff := least(began, over_before) - retain;
    at := began;

    -- A truncate may have deleted the row: without it, no worker would ever delete again.
    if not exists (select from signaling.retention) then
        insert into signaling.retention default values on conflict do nothing;
    end if;
    -- Another worker's turn is not waited for.
    select * into turn from signaling.retention
    -- A turn that lasts longer than any was taken before the clock was set back.
    where is_the_only_row
      and (retention.held_until <= began or retention.held_until > began + 2 * rest or held_by = worker)
    for update skip locked;
    has_turn := found;
    is_pass_over := false;
    if not has_turn then
        delete_finished.held_until := (select retention.held_until from signaling.retention where is_the_only_row);
        return;
    end if;
    -- If the server crashes, what it forgets of this is deleted again.
    perform set_config('synchronous_commit', 'off', true);

    if turn.began_at is null then
        turn.began_at := began;
        turn.looked_up_to := 0;
        turn.last_row := 0;
        turn.deleted := 0;
    end if;
    newest_id := coalesce(pg_sequence_last_value(pg_get_serial_sequence('signaling.outbox', 'id')::regclass), 0);

    loop
        step_end := turn.looked_up_to + ids_a_step + (turn.looked_up_to - turn.last_row) / 1000;
        select count(*) as rows, max(id) as last_row, coalesce(bool_and(is_young), true) as all_young,
               coalesce(array_agg(id) filter (where is_old), '{}') as old_ids
        into step
        from (select id,
                     status <> 'pending' and finished_at < cutoff as is_old,
                     -- What a producer has dated into the future says nothing.
                     created_at >= cutoff and created_at <= began as is_young
              from signaling.outbox
              where id > turn.looked_up_to and id <= step_end
              order by id limit rows_a_step) as met;
        begin
            deleted_step := signaling.delete_old(step.old_ids, cutoff, isolates);
            set constraints all immediate;
        exception when query_canceled or assert_failure or others then
            get stacked diagnostics context = pg_exception_context;
            if not signaling.is_refusal(sqlstate, context) then
                raise;
            end if;
            -- One message that can't be deleted keeps no other, and no later pass.
            deleted_step := signaling.delete_old(step.old_ids, cutoff, isolates => true);
        end;

        deleted_now := deleted_now + deleted_step;
        young_rows := case when step.all_young then young_rows + step.rows else 0 end;
        turn.last_row := coalesce(step.last_row, turn.last_row);
        turn.looked_up_to := case when step.rows = rows_a_step then step.last_row else step_end end;
        is_pass_over := turn.looked_up_to >= newest_id or young_rows >= rows_a_step;
        exit when is_pass_over or deleted_now + rows_a_step > most_rows or clock_timestamp() >= began + least(max_time, interval '1 second');
    end loop;

    deleted := turn.deleted + deleted_now;
    delete_finished.held_until := clock_timestamp() + case when is_pass_over then rest else lease end;
    update signaling.retention
    set held_by = case when not is_pass_over then worker end,
        held_until = delete_finished.held_until,
        began_at = case when not is_pass_over then turn.began_at end,
        looked_up_to = turn.looked_up_to,
        last_row = turn.last_row,
        deleted = delete_finished.deleted
    where is_the_only_row;
end
$$;
