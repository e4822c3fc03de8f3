-- Trigger on inserts into signaling.schema_migrations: skips these rows in a data-only restore. The present rows describe this
-- database, as `worker migrate` has made it. Rows of a dump describe another one, and the first of them would collide with a
-- present row and fail the restore.
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
