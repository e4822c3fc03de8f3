-- Rights: what roles with only some rights need, and nothing that lends out more. `worker grant` gives these rights.
--
-- Functions are altered, not replaced: what they do stays as it is, but for signaling.cancel. Takes no lock on a table, and on signaling.delivery
-- that of a reader: with an outbox of 5 million rows it takes 6 to 12 ms, in which nobody waits.

-- Where every function looks for names: pg_temp last, where it would else come first. What a caller has in a schema or
-- a temporary schema of their own never stands in for what is meant.
alter function signaling.refuse_finished_insert set search_path = pg_catalog, pg_temp;
alter function signaling.refuse_unknown_app     set search_path = pg_catalog, pg_temp;
alter function signaling.ring_bell              set search_path = pg_catalog, pg_temp;
alter function signaling.slot_rate              set search_path = pg_catalog, pg_temp;
alter function signaling.present_rate           set search_path = pg_catalog, pg_temp;
alter function signaling.calls                  set search_path = pg_catalog, pg_temp;
alter function signaling.peak_rate              set search_path = pg_catalog, pg_temp;
alter function signaling.pause                  set search_path = pg_catalog, pg_temp;
alter function signaling.resume                 set search_path = pg_catalog, pg_temp;
alter function signaling.set_limit              set search_path = pg_catalog, pg_temp;
alter function signaling.retry                  set search_path = pg_catalog, pg_temp;

-- A producer may cancel without a right to write the worker's columns. And the log says which cancelled messages may
-- have been called, as it does of others that were lost with their worker.
-- Unchecked: the check would lock the tables, if only as an insert does.
set local check_function_bodies = off;
create or replace function signaling.cancel(id bigint) returns boolean
    language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    with cancelled as (
        update signaling.outbox
        set status = 'cancelled', finished_at = clock_timestamp(),
            attempts = attempts + (claim_id is not null)::int,
            error = case when claim_id is not null
                         then 'cancelled after a worker died with it: whether it was called is not known'
                         else error end
        where outbox.id = $1
          and outbox.status = 'pending'
          and (outbox.claim_id is null or outbox.due_at <= clock_timestamp())
        returning outbox.id, attempts, claimed_by, claim_id is not null as lost
    ), logged as (
        insert into signaling.attempt (message_id, attempt, outcome, error, claimed_by)
        select cancelled.id, attempts, 'lost',
               'the worker that had this message ended without a record: whether it was called is not known', claimed_by
        from cancelled where lost
    )
    select exists (select from cancelled)
$$;
set local check_function_bodies = on;

-- The row without its content: without payload, and without dedupe_key, which may be made of content. A view, so that
-- `select *` works, and that a column which comes later has to be let in.
create view signaling.delivery_status as
select id, app, sender, destination, channel_name, status, state, next_attempt_at, age,
       attempts, max_attempts, http_status, error, request_id,
       created_at, sent_at, finished_at, expires_at, wait_for_ack, at_most_once, claimed_by
from signaling.delivery;

comment on view signaling.delivery_status is
    'What becomes of messages, without their content: signaling.delivery without payload and dedupe_key.';

-- Functions that change something are for those who are given them. The doorbell is one: it runs with its owner's
-- rights, and as the trigger of somebody else's table it would compare that table's column with a cast of theirs.
revoke execute on function
    signaling.cancel, signaling.pause, signaling.resume, signaling.set_limit, signaling.retry, signaling.ring_bell
from public;

-- Rights that were given by hand go on to do what they did: who may update what a function updates may call it, and
-- who may read all of a message may read its status.
do $$
declare
    needed record;
begin
    for needed in
        select gift.what, case when holder.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(holder.grantee)) end as who
        from (values
                  ('signaling.outbox'::regclass, 'status', 'UPDATE', 'execute on function signaling.cancel, signaling.retry'),
                  ('signaling.lane', 'paused_at', 'UPDATE', 'execute on function signaling.pause, signaling.resume'),
                  ('signaling.lane', 'limit_per_s', 'UPDATE', 'execute on function signaling.set_limit'),
                  ('signaling.delivery', 'status', 'SELECT', 'select on signaling.delivery_status')
             ) as gift (relation, column_name, privilege, what)
        join pg_class on pg_class.oid = gift.relation
        join pg_attribute on attrelid = gift.relation and attname = gift.column_name
        cross join lateral (
            select grantee from aclexplode(relacl) where privilege_type = gift.privilege
            union
            -- One column of a view says nothing of the others.
            select grantee from aclexplode(attacl) where privilege_type = gift.privilege and gift.privilege = 'UPDATE'
            union
            select oid from pg_roles where rolname = 'pg_write_all_data' and gift.privilege = 'UPDATE'
        ) as holder
        where holder.grantee <> relowner
    loop
        execute format('grant %s to %s', needed.what, needed.who);
    end loop;
end
$$;
