-- Makes messages due again that have ended without success. A filter that is null matches every message. Each message gets
-- all its attempts again, and loses an expiry that has passed. A message that was sent before waits as a retry,
-- any other as a first attempt.
--
-- error_like     a pattern for LIKE
-- dry_run        counts the messages, and changes nothing
-- max_rows       at most this many messages
--
-- Returns the number of messages of each app. Fails if there is no such app.
-- Locks the messages; skips messages that are locked.
-- Index: outbox_pkey if ids are given. Else it may read the whole table.
create or replace function signaling.retry(
    app           text default null,
    statuses      text[] default array['failed'],
    since         timestamptz default null,
    until         timestamptz default null,
    error_like    text default null,
    http_statuses integer[] default null,
    ids           bigint[] default null,
    dry_run       boolean default false,
    max_rows      bigint default null
) returns table (app_of_messages text, messages bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off
as $$
begin
    if $2 is null or not $2 <@ array['failed', 'expired', 'cancelled', 'unknown'] then
        raise exception 'only messages that are failed, expired, cancelled or unknown can be sent again'
            using errcode = 'invalid_parameter_value';
    end if;
    if dry_run then
        return query select matched.app, count(*) from (
            select outbox.app from signaling.outbox
            where ($1 is null or outbox.app = $1) and status = any ($2)
              and ($3 is null or finished_at >= $3) and ($4 is null or finished_at < $4)
              and ($5 is null or error like $5) and ($6 is null or http_status = any ($6))
              and ($7 is null or id = any ($7))
            limit $9) as matched group by matched.app;
    else
        for app_of_messages, messages in
        with chosen as (
            select id from signaling.outbox
            where ($1 is null or outbox.app = $1) and status = any ($2)
              and ($3 is null or finished_at >= $3) and ($4 is null or finished_at < $4)
              and ($5 is null or error like $5) and ($6 is null or http_status = any ($6))
              and ($7 is null or id = any ($7))
            order by id
            limit $9
            for update skip locked
        ), retried as (
            update signaling.outbox
            set status = 'pending', finished_at = null, attempts = 0, uncharged = 0, failing_since = null, claim_id = null, claimed_by = null,
                due_at = clock_timestamp(),
                expires_at = case when expires_at > clock_timestamp() then expires_at end
            from chosen where outbox.id = chosen.id
            returning outbox.app
        )
        select retried.app, count(*) from retried group by retried.app
        loop
            perform signaling.wake_workers(app_of_messages);
            return next;
        end loop;
    end if;
    -- A misspelt name would otherwise look like an app without failures.
    if not found and $1 is not null and not exists (select from signaling.outbox where outbox.app = $1) then
        perform signaling.refuse_unknown_app($1);
    end if;
end
$$;
