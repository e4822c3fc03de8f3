-- Trigger on inserts into signaling.attempt: gives the row a free id if its own is taken, and moves the sequence past the newest row.
--
-- A logical replica and some restores have the rows and not the position of the sequence. Without this, each record of a
-- failed attempt and each claim of a lost message would fail with a duplicate key, until the sequence has caught up: the
-- worker would call messages again whose outcomes it knows, once for each id that is taken.
--
-- Locks out other sessions that would move the sequence, until the end of the transaction. A row with a free id waits for
-- nothing.
-- Index: attempt_pkey.
create or replace function signaling.take_free_id() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
as $$
declare
    sequence regclass;
    -- Two sessions that moved the sequence at once could give both rows the same id.
    turn constant bigint := 7310596821344205;
begin
    if exists (select from signaling.attempt where attempt.id = new.id)
       and coalesce(current_setting('signaling.restoring', true), '') <> 'on' then
        sequence := pg_get_serial_sequence('signaling.attempt', 'id');
        perform pg_advisory_xact_lock(turn);
        perform setval(sequence, greatest((select max(attempt.id) from signaling.attempt), nextval(sequence)));
        new.id := nextval(sequence);
    end if;
    return new;
end
$$;
