-- Chooses the message with which a held lane probes, and locks it. One message or one destination must not decide for the
-- whole app, so probes differ: first attempts and retries take turns, the oldest and the newest do, and a destination other
-- than the last one is preferred, among up to 100 due messages of each kind. Messages that may be sent again are preferred, because a probe that
-- is not answered ends the others as unknown.
--
-- nth            the number of this probe within the hold, from 1; only a failed probe raises it
-- last_target    the destination or channel of the last one
--
-- Returns the place of the message, or none.
-- Locks the message; passes over messages that are locked.
-- Indexes: refused_pkey, outbox_retries, outbox_first_attempts; then it reaches messages by their ctid.
create or replace function signaling.choose_probe(
    app text, at timestamptz, over_before timestamptz, nth integer, last_target text
) returns tid[]
    language plpgsql
as $$
#variable_conflict use_column
declare
    -- So many messages of each kind are compared.
    most_compared constant integer := 100;
    wants_retry constant boolean := nth % 2 = 1;
    wants_newest constant boolean := nth / 2 % 2 = 1;
    -- A trigger or a constraint keeps these messages from being changed.
    has_refused constant boolean := exists (select from signaling.refused where refused.app = choose_probe.app);
    retries tid[];
    firsts tid[];
begin
    if wants_newest then
        retries := array(
            select ctid from signaling.outbox
            where app = choose_probe.app and status = 'pending' and (sent_at is not null or claim_id is not null)
              and due_at <= at and (claim_id is null or due_at <= over_before)
              and (expires_at is null or expires_at > at or expires_at <= over_before)
              and case when has_refused then not exists (
                      select from signaling.refused
                      where refused.app = choose_probe.app and message_id = outbox.id and retry_at > at) else true end
            order by due_at desc, id desc limit most_compared);
        firsts := array(
            select ctid from signaling.outbox
            where app = choose_probe.app and status = 'pending' and sent_at is null and claim_id is null and due_at <= at
              and (expires_at is null or expires_at > at or expires_at <= over_before)
              and case when has_refused then not exists (
                      select from signaling.refused
                      where refused.app = choose_probe.app and message_id = outbox.id and retry_at > at) else true end
            order by due_at desc, id desc limit most_compared);
    else
        retries := array(
            select ctid from signaling.outbox
            where app = choose_probe.app and status = 'pending' and (sent_at is not null or claim_id is not null)
              and due_at <= at and (claim_id is null or due_at <= over_before)
              and (expires_at is null or expires_at > at or expires_at <= over_before)
              and case when has_refused then not exists (
                      select from signaling.refused
                      where refused.app = choose_probe.app and message_id = outbox.id and retry_at > at) else true end
            order by due_at, id limit most_compared);
        firsts := array(
            select ctid from signaling.outbox
            where app = choose_probe.app and status = 'pending' and sent_at is null and claim_id is null and due_at <= at
              and (expires_at is null or expires_at > at or expires_at <= over_before)
              and case when has_refused then not exists (
                      select from signaling.refused
                      where refused.app = choose_probe.app and message_id = outbox.id and retry_at > at) else true end
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
