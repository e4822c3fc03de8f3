-- Ends an operator's pause, and the wait that the API has asked for by Retry-After. A hold stays until the API accepts,
-- rejects or throttles a probe.
-- The next claims try refused messages again: see refuse().
--
-- Returns a sentence about the change, and about each remaining obstacle, from signaling.obstacle.
-- Locks the lane's row.
-- Index: lane_pkey.
create or replace function signaling.resume(app text) returns text
    language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off
as $$
declare
    locked signaling.lane;
    waited boolean;
    tried bigint;
    change text;
begin
    perform signaling.refuse_unknown_app($1);
    select * into locked from signaling.lane where lane.app = $1 for no key update;
    waited := coalesce(locked.retry_after_until > clock_timestamp(), false);
    delete from signaling.refused where refused.app = $1;
    get diagnostics tried = row_count;
    change := case when locked.paused_at is not null and waited then 'resumed, and ended the wait that the API has asked for'
                   when locked.paused_at is not null then 'resumed'
                   when waited then 'ended the wait that the API has asked for'
                   when tried > 0 then 'tries messages again that the database refused to change: ' || tried
                   else 'nothing changed: the app was not paused, and the API has asked for no wait' end;
    if locked.paused_at is not null or waited then
        update signaling.lane set paused_at = null, paused_by = null, pause_reason = null, retry_after_until = null
        where lane.app = $1;
    end if;
    if locked.paused_at is not null or waited or tried > 0 then
        perform signaling.wake_workers($1);
    end if;
    return change || coalesce('; but ' || (select string_agg(sentence, '; and ' order by rank) from signaling.obstacle
                                           where obstacle.app = $1), '');
end
$$;
