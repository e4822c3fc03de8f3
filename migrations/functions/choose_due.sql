-- Chooses due messages for the free slots of a lane, oldest first, and locks them. Without a fixed share, a burst of retries
-- would stop first attempts, or the reverse. So retries get a fifth of the slots on average. Unused slots of one kind go to
-- the other.
--
-- has_refused    the app has messages that the database refuses to change: see refuse()
-- The other arguments and the scan positions in the result are those of claim().
--
-- Returns the ctids of the messages.
-- Locks the messages; skips messages that are locked.
-- Indexes: outbox_retries, outbox_first_attempts.
create or replace function signaling.choose_due(
    app text, at timestamptz, ended_before timestamptz, slots integer, avoided text[], has_refused boolean,
    first_after_at timestamptz, first_after_id bigint, retry_after_at timestamptz, retry_after_id bigint,
    out chosen tid[], out passed_at timestamptz, out passed_id bigint, out retry_passed_at timestamptz,
    out retry_passed_id bigint
)
    language plpgsql
as $$
#variable_conflict use_column
declare
    -- A claim that avoids destinations reads at most so many messages of each kind. Without a limit, the claim would read
    -- past any number of avoided messages.
    most_read constant integer := 2000;
    newest_id constant bigint := 9223372036854775807;
    retry_share constant double precision := 0.2;
    retries tid[];
    firsts tid[];
    retry_count integer;
begin
    if avoided <> '{}' then
        select due_at, id into passed_at, passed_id from signaling.outbox
        where app = choose_due.app and status = 'pending' and sent_at is null and claim_id is null
          and (due_at, id) > (first_after_at, first_after_id) and due_at <= at
        order by due_at, id offset most_read limit 1;
        select due_at, id into retry_passed_at, retry_passed_id from signaling.outbox
        where app = choose_due.app and status = 'pending' and (sent_at is not null or claim_id is not null)
          and (due_at, id) > (retry_after_at, retry_after_id) and due_at <= at
        order by due_at, id offset most_read limit 1;
    end if;

    retries := array(
        select ctid from signaling.outbox
        where app = choose_due.app and status = 'pending' and (sent_at is not null or claim_id is not null)
          and (due_at, id) > (retry_after_at, retry_after_id) and due_at <= at
          and (due_at, id) <= (coalesce(retry_passed_at, at), coalesce(retry_passed_id, newest_id))
          and (claim_id is null or due_at <= ended_before)
          and (expires_at is null or expires_at > at or expires_at <= ended_before)
          and coalesce(destination, channel_name) <> all (avoided)
          and (not has_refused or not signaling.is_refused(app, id, at))
        order by due_at, id limit slots for no key update skip locked);
    firsts := array(
        select ctid from signaling.outbox
        where app = choose_due.app and status = 'pending' and sent_at is null and claim_id is null
          and (due_at, id) > (first_after_at, first_after_id) and due_at <= at
          and (due_at, id) <= (coalesce(passed_at, at), coalesce(passed_id, newest_id))
          and (expires_at is null or expires_at > at or expires_at <= ended_before)
          and coalesce(destination, channel_name) <> all (avoided)
          and (not has_refused or not signaling.is_refused(app, id, at))
        order by due_at, id limit slots for no key update skip locked);
    retry_count := least(cardinality(retries),
                         greatest(floor(slots * retry_share + random())::integer, slots - cardinality(firsts)));
    chosen := retries[:retry_count] || firsts[:slots - retry_count];

    -- The claim may have left messages before these positions, so the next claim reads from the same positions.
    if cardinality(firsts) >= slots - retry_count then
        passed_at := null; passed_id := null;
    end if;
    if cardinality(retries) > retry_count or retry_count = slots then
        retry_passed_at := null; retry_passed_id := null;
    end if;
end
$$;
