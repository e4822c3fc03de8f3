-- Trigger on inserts into signaling.schema_migrations and signaling.schema_functions: leaves these rows out of a data-only
-- restore. They say what `worker migrate` has made in this database. Those of a dump would say the same of another one,
-- and the first of them would collide and undo the restore of the table.
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
