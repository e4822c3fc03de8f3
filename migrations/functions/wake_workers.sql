-- Notifies an app's workers of messages that an operator, or the end of a hold, has made due.
create or replace function signaling.wake_workers(app text) returns void
    language plpgsql
as $$
begin
    if signaling.can_notify() then
        perform pg_catalog.pg_notify('signaling_wakeup', app);
    end if;
end
$$;
