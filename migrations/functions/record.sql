-- Writes the outcomes of claimed messages. Element n of each array belongs to record n.
--
-- recorded_by    the worker's name, informational
-- ids, claim_ids the message, and the claim that had it
-- original_due_at when the message was due before the claim: a message that stays pending without a delay is due then
-- delays         how long from now on the message waits for its next attempt
-- statuses       the final status; null: the message stays pending
-- charged        the attempt counts against max_attempts
-- sent_at        when the attempt began; null: there was none
-- http_statuses, request_ids, errors   the response
-- outcomes       the attempt's outcome, for signaling.attempt; null if the API accepted the message, or if there was no
--                attempt
-- durations      how long the attempt took
-- faults, evidences   on which side the worker saw the fault of a failed attempt, and why: for signaling.attempt
-- one_by_one     after a call that the database refused, or that timed out: writes each record on its own. If the database
--                refuses a record, writes it without details. After a second the rest is 'locked'.
-- logs           writes signaling.attempt
--
-- Returns a row for each record, from 1, with one of these results:
-- 'recorded'     the outcome is written; due_at is when a message that stays pending is due
-- 'locked'       another session has locked the message, or the time was over: the worker tries again
-- 'discarded'    the claim had ended. Nothing is written
-- 'without_details'   the outcome is written without the response and without a row in signaling.attempt, because a
--                trigger or a constraint refuses these
-- 'refused'      a trigger or a constraint refuses any outcome: the message stays claimed until its lease ends
-- For the last two, `reason` has the code of the error and its constraint; null: a trigger skipped the update.
--
-- The worker may repeat a call. The second call changes nothing: the result is 'recorded' if the message is final, and
-- 'discarded' if the message stayed pending, because it belongs to no claim then.
-- Locks the messages that it writes; skips messages that are locked.
-- Index: outbox_pkey.
create or replace function signaling.record(
    recorded_by text, ids bigint[], claim_ids uuid[], original_due_at timestamptz[], delays interval[], statuses text[], charged boolean[],
    sent_at timestamptz[], http_statuses integer[], request_ids text[], errors text[], outcomes text[],
    durations interval[], faults text[] default null, evidences text[] default null, one_by_one boolean default false,
    logs boolean default true
) returns table (place integer, result text, due_at timestamptz, reason text)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on set jit = off
as $$
#variable_conflict use_column
declare
    at timestamptz := clock_timestamp();
    written integer[] := '{}';
    written_due_at timestamptz[] := '{}';
    found_free integer[];
    began_at timestamptz;
    without_details boolean;
    name text;
    context text;
begin
    perform signaling.assert_session();

    perform signaling.assert_duration('an element of delays or durations', given.duration, may_be_zero => true)
    from unnest(delays || durations) as given (duration)
    where given.duration is not null and not signaling.is_duration(given.duration);

    if one_by_one then
        for nth in 1 .. cardinality(ids) loop
            place := nth;
            reason := null;
            due_at := null;
            if clock_timestamp() >= at + interval '1 second' then
                result := 'locked';
                return next;
                continue;
            end if;
            -- First with all details, then without.
            foreach without_details in array array[false, true] loop
                began_at := clock_timestamp();
                begin
                    select one.result, one.due_at into result, due_at
                    from signaling.record(
                        recorded_by, ids[nth:nth], claim_ids[nth:nth], original_due_at[nth:nth], delays[nth:nth],
                        statuses[nth:nth], charged[nth:nth], record.sent_at[nth:nth],
                        case when without_details then array[null::integer] else http_statuses[nth:nth] end,
                        case when without_details then array[null::text] else request_ids[nth:nth] end,
                        case when without_details then array[null::text] else errors[nth:nth] end,
                        outcomes[nth:nth], durations[nth:nth], faults[nth:nth], evidences[nth:nth],
                        logs => not without_details) as one;
                    -- Runs deferred triggers now. At the commit, their error would not name the record.
                    set constraints all immediate;
                    if without_details and result = 'recorded' then
                        result := 'without_details';
                    end if;
                    exit;
                exception when query_canceled or assert_failure or others then
                    get stacked diagnostics context = pg_exception_context, name = constraint_name;
                    if not signaling.is_refusal(sqlstate, context, began_at) then
                        raise;
                    end if;
                    reason := concat_ws(' ', sqlstate, nullif(name, ''));
                    result := 'refused';
                end;
                -- statement_timeout has ended this try, and fires only once, so nothing would bound another one.
                exit when reason = '57014' and clock_timestamp() >= began_at + interval '1 second';
            end loop;
            return next;
        end loop;
        return;
    end if;

    -- Write the records whose claims still have their messages. `is not distinct from` and `case` keep Postgres from using
    -- outbox_retries: the index looks small, but while a session holds a snapshot, it keeps an entry for each message sent
    -- since.
    --
    -- Another session may change a message after this statement's snapshot and before its lock. Then this transaction locks
    -- the new version, which the update does not see. The lock stays, so a second try writes the record. Otherwise the result
    -- would be 'refused', and the message would be sent again.
    for try in 1 .. 2 loop
        with given as materialized (
            select given.*
            from unnest(ids, claim_ids, original_due_at, delays, statuses, charged, record.sent_at, http_statuses, request_ids,
                        errors, outcomes)
                with ordinality as given (id, claim_id, original_due_at, delay, status, charged, sent_at, http_status, request_id, error,
                                          outcome, place)
        ), free as materialized (
            select given.*, outbox.ctid as version
            from given join signaling.outbox using (id)
            where outbox.claim_id is not distinct from given.claim_id
              and case when outbox.status = 'pending' then true end
              -- The second try takes only rows that this transaction has locked. Another row could be raced again.
              and (found_free is null or given.place = any (found_free)) and given.place <> all (written)
            for no key update of outbox skip locked
        ), recorded as (
            update signaling.outbox
            set status = coalesce(free.status, 'pending'),
                -- Without a delay the message is due now, even if the clock was set back since the claim.
                due_at = case when free.delay is not null then at + free.delay else least(free.original_due_at, at) end,
                -- A pending message belongs to no claim; a final one keeps the claim that finished it.
                claim_id = case when free.status is not null then outbox.claim_id end,
                claimed_by = case when free.status is not null then outbox.claimed_by end,
                finished_at = case when free.status is not null then at end,
                attempts = outbox.attempts + free.charged::integer,
                uncharged = outbox.uncharged + (free.outcome is not null and not free.charged)::integer,
                failing_since = case when free.outcome is not null then coalesce(outbox.failing_since, free.sent_at)
                                     else outbox.failing_since end,
                sent_at = coalesce(free.sent_at, outbox.sent_at),
                http_status = case when free.sent_at is not null then free.http_status else outbox.http_status end,
                request_id = case when free.sent_at is not null then free.request_id else outbox.request_id end,
                -- A message that expires after an attempt keeps the error of that attempt.
                error = case when free.sent_at is not null then free.error
                             when free.status = 'expired' then coalesce(outbox.error, free.error)
                             else coalesce(free.error, outbox.error) end
            from free
            where outbox.ctid = free.version
            returning free.place::integer, outbox.due_at
        )
        select written || array_agg(place), written_due_at || array_agg(due_at), array(select free.place::integer from free)
        into written, written_due_at, found_free from recorded;
        exit when found_free <@ written;
    end loop;

    -- Log the attempts that did not end well.
    if logs and array_remove(outcomes, null) <> '{}' then
        insert into signaling.attempt (message_id, attempt, sent_at, duration, http_status, outcome, error, fault,
                                       charged, evidence, claimed_by)
        select given.id, outbox.attempts + outbox.uncharged, given.sent_at, given.duration,
               given.http_status, given.outcome, given.error, given.fault, given.charged, given.evidence, recorded_by
        from unnest(ids, charged, record.sent_at, http_statuses, errors, outcomes, durations, faults, evidences)
                 with ordinality as given (id, charged, sent_at, http_status, error, outcome, duration, fault, evidence, place)
             join signaling.outbox using (id)
        where given.outcome is not null and given.place = any (written);
    end if;

    return query select unnest(written), 'recorded', unnest(written_due_at), null::text;

    -- Find out why the other records were not written.
    if cardinality(written) < cardinality(ids) then
        return query
        select given.place::integer,
               -- A trigger may skip an update without an error.
               case when given.place = any (found_free) then 'refused'
                    when outbox.claim_id = given.claim_id and outbox.status = 'pending' then 'locked'
                    when outbox.claim_id = given.claim_id and outbox.status = given.status then 'recorded'
                    else 'discarded' end,
               null::timestamptz, null::text
        from unnest(ids, claim_ids, statuses) with ordinality as given (id, claim_id, status, place)
             left join signaling.outbox using (id)
        where given.place <> all (written);
    end if;
end
$$;
