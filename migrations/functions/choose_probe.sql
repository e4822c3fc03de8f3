-- Chooses the message with which a held lane probes the API, and locks it. One message or one destination must not decide
-- for the whole app, so probes differ. First attempts and retries alternate, and so do the oldest and the newest messages.
-- Of up to 100 due messages of each kind, the function prefers another destination than that of the last probe, then a
-- message that may be sent again, because a probe without a response ends an at-most-once message as unknown.
--
-- nth            the number of this probe within the hold, from 1; only a failed probe raises it
-- last_target    the destination or channel of the last probe
-- has_refused    the app has messages that the database refuses to change: see refuse()
--
-- Returns the ctid of the message, or an empty array.
-- Locks the message; skips messages that are locked.
-- Indexes: outbox_retries, outbox_first_attempts; then it reaches messages by their ctid.
create or replace function signaling.choose_probe(
    app text, at timestamptz, ended_before timestamptz, nth integer, last_target text, has_refused boolean
) returns tid[]
    language plpgsql
as $$
#variable_conflict use_column
declare
    most_compared constant integer := 100;
    wants_retry constant boolean := nth % 2 = 1;
    wants_newest constant boolean := nth / 2 % 2 = 1;
    retries tid[];
    firsts tid[];
begin
    if wants_newest then
        retries := array(
            select ctid from signaling.outbox
            where app = choose_probe.app and status = 'pending' and (sent_at is not null or claim_id is not null)
              and due_at <= at and (claim_id is null or due_at <= ended_before)
              and (expires_at is null or expires_at > at or expires_at <= ended_before)
              and (not has_refused or not signaling.is_refused(app, id, at))
            order by due_at desc, id desc limit most_compared);
        firsts := array(
            select ctid from signaling.outbox
            where app = choose_probe.app and status = 'pending' and sent_at is null and claim_id is null and due_at <= at
              and (expires_at is null or expires_at > at or expires_at <= ended_before)
              and (not has_refused or not signaling.is_refused(app, id, at))
            order by due_at desc, id desc limit most_compared);
    else
        retries := array(
            select ctid from signaling.outbox
            where app = choose_probe.app and status = 'pending' and (sent_at is not null or claim_id is not null)
              and due_at <= at and (claim_id is null or due_at <= ended_before)
              and (expires_at is null or expires_at > at or expires_at <= ended_before)
              and (not has_refused or not signaling.is_refused(app, id, at))
            order by due_at, id limit most_compared);
        firsts := array(
            select ctid from signaling.outbox
            where app = choose_probe.app and status = 'pending' and sent_at is null and claim_id is null and due_at <= at
              and (expires_at is null or expires_at > at or expires_at <= ended_before)
              and (not has_refused or not signaling.is_refused(app, id, at))
            order by due_at, id limit most_compared);
    end if;
    return array(
        select outbox.ctid
        from unnest(retries || firsts) with ordinality as candidate (place, nth)
             join signaling.outbox on outbox.ctid = candidate.place
        order by coalesce(destination, channel_name) is not distinct from last_target, at_most_once,
                 (candidate.nth <= cardinality(retries)) <> wants_retry, candidate.nth
        limit 1 for no key update of outbox skip locked);
end
$$;
