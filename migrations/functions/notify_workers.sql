-- Trigger on inserts: notifies the workers of apps that have an idle worker. NOTIFY takes a lock over all commits of the
-- cluster, so workers with a backlog switch it off: see want_wakeup().
--
-- The trigger locks no row. A full notification queue would fail each commit, so above half the trigger leaves the message
-- to the workers' polls. Where transactions are prepared, can_notify() switches it off, because a PREPARE would fail.
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
