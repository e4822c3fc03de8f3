-- Corrects due times of an app's messages after the database's clock was set back. Messages that were inserted, claimed or
-- sent while the clock was ahead would otherwise wait longer by the length of the step. A call reads up to 5,000 messages
-- that are not due, in the order of their due times. A second call for the same messages changes nothing.
--
-- lease          how long a claim lasts
-- of_retries     reads retries and claimed messages; otherwise first attempts
-- after_at, after_id   reads messages after this (due_at, id): -infinity and 0 at first
--
-- - A first attempt whose insert lies in the future, and that was to be sent at once, becomes due. A scheduled message keeps
--   its time, because that may come from another clock.
-- - A retry whose last call lies in the future waits as long as it would have waited after that call.
-- - A lease that would last longer than two leases now lasts one.
-- - A message that the database refuses to change keeps its due time.
--
-- Returns how many messages have changed, and the (due_at, id) after which the next call continues: null after the last one.
-- Locks the messages that it changes; skips messages that are locked.
-- Indexes: outbox_retries, outbox_first_attempts; then it reaches messages by their ctid.
create or replace function signaling.set_messages_back(
    app text, lease interval, of_retries boolean, after_at timestamptz, after_id bigint,
    out changed integer, out last_at timestamptz, out last_id bigint
)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on set jit = off
as $$
#variable_conflict use_column
declare
    most_read constant integer := 5000;
    at constant timestamptz := clock_timestamp();
    from_at constant timestamptz := greatest(after_at, at);
    places tid[];
begin
    perform signaling.assert_session();
    perform signaling.assert_duration('lease', lease);
    if of_retries then
        select due_at, id into last_at, last_id from signaling.outbox
        where app = set_messages_back.app and status = 'pending' and (sent_at is not null or claim_id is not null)
          and (due_at, id) > (from_at, after_id)
        order by due_at, id offset most_read - 1 limit 1;
        places := array(
            select ctid from signaling.outbox
            where app = set_messages_back.app and status = 'pending' and (sent_at is not null or claim_id is not null)
              and (due_at, id) > (from_at, after_id) and due_at <= coalesce(last_at, 'infinity')
              and case when claim_id is not null then due_at > at + 2 * lease
                       -- A message that an operator has made due again has no attempts.
                       when attempts + uncharged = 0 then true
                       else sent_at > at and due_at > sent_at end
            order by due_at, id for no key update skip locked);
    else
        select due_at, id into last_at, last_id from signaling.outbox
        where app = set_messages_back.app and status = 'pending' and sent_at is null and claim_id is null
          and (due_at, id) > (from_at, after_id)
        order by due_at, id offset most_read - 1 limit 1;
        places := array(
            select ctid from signaling.outbox
            where app = set_messages_back.app and status = 'pending' and sent_at is null and claim_id is null
              and (due_at, id) > (from_at, after_id) and due_at <= coalesce(last_at, 'infinity')
              and created_at > at and due_at <= created_at
            order by due_at, id for no key update skip locked);
    end if;

    changed := signaling.change_each(
        'update signaling.outbox
         set due_at = case when claim_id is not null then $2 + $3
                           when sent_at is null or attempts + uncharged = 0 then $2
                           else $2 + (due_at - sent_at) end
         where ctid = any ($1)',
        places, at, lease);
end
$$;
