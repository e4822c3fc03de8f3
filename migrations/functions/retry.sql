-- Makes finished messages due again that did not succeed, as signaling.retry_by_app does.
--
-- Returns how many messages.
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
) returns bigint
    language sql volatile security definer set search_path = pg_catalog, pg_temp set row_security = off
as 'select coalesce(sum(messages), 0)::bigint from signaling.retry_by_app($1, $2, $3, $4, $5, $6, $7, $8, $9)';
