-- Lets a paused app send again. A hold goes on until the API answers. True if the app was paused.
--
-- Locks the lane's row.
-- Index: lane_pkey.
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
