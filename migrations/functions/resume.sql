-- Lets a paused app send again. It does not end a hold, which ends when the API answers. True if it was paused.
create or replace function signaling.resume(app text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off
as $$
begin
    perform signaling.refuse_unknown_app($1);
    update signaling.lane set paused_at = null, paused_by = null, pause_reason = null
    where lane.app = $1 and paused_at is not null;
    if found then
        perform signaling.wake_workers($1);
        return true;
    end if;
    return false;
end
$$;
