-- Has inserts of an app notify its workers, or stops that.
--
-- Returns 'on' if inserts notify; 'new' if they do from now on, but an insert whose trigger ran before and that commits
-- later does not; null if they do not.
--
-- is_idle        true: a worker waits for messages; false: a backlog keeps it awake; null: leave it as it is
--
-- Locks the app's wakeup row, if it changes. It is written once in half a minute while a worker is idle.
-- Index: wakeup_pkey.
create or replace function signaling.want_wakeup(app text, is_idle boolean, at timestamptz) returns text
    language plpgsql
as $$
declare
    wanted_until timestamptz := (select wakeup.wanted_until from signaling.wakeup where wakeup.app = $1);
    was_wanted boolean := coalesce(wanted_until > at, false);
begin
    if is_idle and not signaling.can_notify() then
        return null;
    elsif is_idle and (not was_wanted or wanted_until < at + interval '30 seconds') then
        -- For a minute at a time, so that inserts do not notify workers for long that have died.
        insert into signaling.wakeup values (app, at + interval '60 seconds')
        on conflict on constraint wakeup_pkey do update set wanted_until = excluded.wanted_until;
        return case when was_wanted then 'on' else 'new' end;
    elsif not is_idle and was_wanted then
        update signaling.wakeup set wanted_until = at where wakeup.app = $1;
        return null;
    end if;
    return case when was_wanted then 'on' end;
end
$$;
