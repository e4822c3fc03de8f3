-- Trigger on inserts: notifies the workers of apps that have an idle one. NOTIFY takes a lock over all commits of the
-- cluster, so a worker with a backlog asks for none (want_wakeup).
--
-- A producer's transaction never fails because of it: it locks nothing, and leaves the message to the workers' polls
-- while the notification queue is half full. A full queue would fail each commit.
create or replace function signaling.notify_workers() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off
as $$
begin
    perform pg_notify('signaling_wakeup', wakeup.app)
    from signaling.wakeup
    where wanted_until > clock_timestamp()
      and exists (select from inserted where inserted.app = wakeup.app)
      and pg_notification_queue_usage() < 0.5;
    return null;
end
$$;
