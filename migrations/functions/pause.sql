-- Stops an app from sending, fleet-wide. Returns true if the app was not paused before.
--
-- reason, by     informational: `worker status` shows both
--
-- Locks the lane's row.
-- Index: lane_pkey.
create or replace function signaling.pause(app text, reason text default null, by text default session_user) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off
as $$
begin
    perform signaling.refuse_unknown_app($1);
    update signaling.lane set paused_at = clock_timestamp(), paused_by = coalesce($3, session_user), pause_reason = $2
    where lane.app = $1 and paused_at is null;
    return found;
end
$$;
