-- Trigger on inserts into signaling.attempt: if the row's id is taken, gives it a free one, and moves the sequence past the
-- newest row.
--
-- A logical replica and some restores have the rows without the position of the sequence. Each record of a failed attempt
-- would then fail with a duplicate key, once for each taken id, and workers would send these messages again although they
-- know the outcomes.
--
-- Sessions that move the sequence wait for each other, until the end of the transaction. A row with a free id never waits.
-- Index: attempt_pkey.
create or replace function signaling.take_free_id() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
as $$
declare
    sequence regclass;
    -- Two sessions that moved the sequence at once could give both rows the same id.
    lock_id constant bigint := 7310596821344205;
begin
    if exists (select from signaling.attempt where attempt.id = new.id)
       and coalesce(current_setting('signaling.restoring', true), '') <> 'on' then
        sequence := pg_get_serial_sequence('signaling.attempt', 'id');
        perform pg_advisory_xact_lock(lock_id);
        perform setval(sequence, greatest((select max(attempt.id) from signaling.attempt), nextval(sequence)));
        new.id := nextval(sequence);
    end if;
    return new;
end
$$;
