-- Switches on or off whether inserts of an app notify its workers.
--
-- is_idle        true: a worker waits for messages; false: the worker has a backlog; null: changes nothing
--
-- Returns 'on' if inserts notify; 'new' if inserts notify from now on, but not an insert whose trigger ran before and that
-- commits later; null if inserts do not notify.
-- Locks the app's wakeup row, if it changes: about every 30 seconds while a worker is idle.
-- Index: wakeup_pkey.
create or replace function signaling.want_wakeup(app text, is_idle boolean, at timestamptz) returns text
    language plpgsql
as $$
declare
    wanted_until timestamptz := (select wakeup.wanted_until from signaling.wakeup where wakeup.app = $1);
    notified_before boolean := coalesce(wanted_until > at, false);
begin
    if is_idle and not signaling.can_notify() then
        return null;
    elsif is_idle and (not notified_before or wanted_until < at + interval '30 seconds') then
        -- For a minute at a time: inserts soon stop notifying a worker that has died.
        insert into signaling.wakeup values (app, at + interval '60 seconds')
        on conflict on constraint wakeup_pkey do update set wanted_until = excluded.wanted_until;
        return case when notified_before then 'on' else 'new' end;
    elsif not is_idle and notified_before then
        update signaling.wakeup set wanted_until = at where wakeup.app = $1;
        return null;
    end if;
    return case when notified_before then 'on' end;
end
$$;
