-- Trigger on inserts into signaling.schema_migrations: skips the rows of a data-only restore. `worker migrate` has already
-- written the rows of this database, and the first row of the dump would collide with them and fail the restore.
create or replace function signaling.skip_while_restoring() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('signaling.restoring', true) = 'on' then
        return null;
    end if;
    return new;
end
$$;
