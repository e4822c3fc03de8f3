-- Retention: deletes messages that finished longer ago than `retain`, with their attempts. A call deletes at most 1,000
-- messages and takes about `max_time`. One process of the fleet deletes at a time. A pass reads the outbox by id, over many
-- calls; the next pass begins a minute after its end.
--
-- There is no index on finished_at, because every message would pay for it. Ids grow in the order of inserts, so old
-- messages stand at the beginning of the primary key. A pass ends at the first rows that are too young to have finished
-- before the cutoff. It skips older messages that are pending or finished lately; the next pass reads them again.
--
-- A step reads a range of ids, because the index still has entries of deleted rows until a vacuum. In a gap the ranges grow.
--
-- Only this function deletes messages, and only final ones older than a minute, so workers need no right to delete.
--
-- worker         a fresh id of the process
-- retain         how long finished messages stay
-- max_time       about how long this call may take
-- ended_before   a time that has certainly passed: a clock that was set ahead must not make messages old
-- one_by_one     after a call that timed out: deletes each message on its own, and skips a message that a function of the
--                application keeps waiting
--
-- Locks the row of signaling.retention and the messages that it deletes; skips messages that are locked, or that the
-- database refuses to delete.
-- Index: outbox_pkey.
create or replace function signaling.delete_finished(
    worker   uuid,
    retain   interval,
    max_time interval default interval '5 milliseconds',
    ended_before timestamptz default 'infinity',
    one_by_one boolean default false,
    out has_turn     boolean,
    out is_pass_over boolean,
    out deleted      bigint,
    out held_until   timestamptz,
    out at           timestamptz
)
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp set row_security = off
    -- With stale statistics, Postgres would otherwise scan the whole outbox instead of using the primary key.
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
begin
    perform signaling.assert_duration('retain', retain);
    perform signaling.assert_duration('max_time', max_time);
    if retain < interval '1 minute' then
        raise exception 'messages are kept for at least 1 minute after they have finished'
            using errcode = 'invalid_parameter_value';
    end if;
    perform signaling.assert_session();
    cutoff := least(began, ended_before) - retain;
    at := began;

    -- A truncate may have deleted the row: without it, no worker would ever delete again.
    if not exists (select from signaling.retention) then
        insert into signaling.retention default values on conflict do nothing;
    end if;
    select * into turn from signaling.retention
    -- A held_until too far ahead was written before the clock was set back.
    where is_the_only_row
      and (retention.held_until <= began or retention.held_until > began + 2 * rest or held_by = worker)
    for update skip locked;
    has_turn := found;
    is_pass_over := false;
    if not has_turn then
        delete_finished.held_until := (select retention.held_until from signaling.retention where is_the_only_row);
        return;
    end if;
    -- After a crash of the server, the next pass deletes the same messages again.
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
               coalesce(array_agg(place) filter (where is_old), '{}') as old_places
        into step
        from (select id, ctid as place,
                     status <> 'pending' and finished_at < cutoff as is_old,
                     -- A producer may have dated created_at into the future.
                     created_at >= cutoff and created_at <= began as is_young
              from signaling.outbox
              where id > turn.looked_up_to and id <= step_end
              order by id limit rows_a_step) as met;
        deleted_now := deleted_now + signaling.change_each(
            'delete from signaling.outbox where ctid = any (array(
                 select ctid from signaling.outbox
                 where ctid = any ($1) and status <> ''pending'' and finished_at < $2 for update skip locked))',
            step.old_places, cutoff, one_by_one => one_by_one);
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
