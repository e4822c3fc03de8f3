-- Ends the messages among the given ones that must not be sent any more. A message that a lost worker may have sent ends as
-- `unknown` if it is at-most-once, and as `failed` if that was its last attempt. A message past its expires_at ends as
-- `expired`. Also logs the attempt of a lost worker for a message that may be sent again.
--
-- places         the messages' ctids: the caller has locked them
-- stops_at       if given, ends each message on its own until then, so that one refused message does not keep the others
--                from ending: first with all details, then without the log and the error text. If the database refuses both,
--                signaling.refuse() lists the message
-- logs           writes signaling.attempt and the error text
--
-- Returns how many messages ended, how many the database refused, and the ctids of the messages that may be sent. After
-- stops_at, the remaining overdue messages are none of these.
create or replace function signaling.end_overdue(
    places tid[], at timestamptz, stops_at timestamptz default null, logs boolean default true,
    out expired integer, out unknown integer, out failed integer, out refused integer, out claimable tid[]
)
    language plpgsql
as $$
#variable_conflict use_column
declare
    overdue tid[];
    ending tid[];
    place tid;
    one record;
    began_at timestamptz;
    code text;
    name text;
    context text;
begin
    expired := 0; unknown := 0; failed := 0; refused := 0;
    overdue := array(select ctid from signaling.outbox
                     where ctid = any (places) and (claim_id is not null or expires_at <= at));
    claimable := array(select given.place from unnest(places) as given (place) where given.place <> all (overdue));
    if overdue = '{}' then
        return;
    end if;

    if stops_at is not null then
        foreach place in array overdue loop
            began_at := clock_timestamp();
            exit when began_at >= stops_at;
            foreach logs in array array[true, false] loop
                begin
                    select * into one from signaling.end_overdue(array[place], at, logs => logs);
                    set constraints all immediate;
                    exit;
                exception when query_canceled or assert_failure or others then
                    one := null;
                    get stacked diagnostics context = pg_exception_context, name = constraint_name;
                    if not signaling.is_refusal(sqlstate, context, began_at) then
                        raise;
                    end if;
                    code := sqlstate;
                end;
                -- statement_timeout has ended this try, and fires only once, so nothing would bound another one.
                exit when code = '57014' and clock_timestamp() >= began_at + interval '1 second';
            end loop;
            if one is null then
                perform signaling.refuse(array[place], at, code, name);
                refused := refused + 1;
                continue;
            end if;
            expired := expired + one.expired;
            unknown := unknown + one.unknown;
            failed := failed + one.failed;
            refused := refused + one.refused;
            claimable := claimable || one.claimable;
        end loop;
        return;
    end if;

    ending := array(
        select ctid from signaling.outbox
        where ctid = any (overdue)
          and (claim_id is not null and (at_most_once or attempts + 1 >= max_attempts) or expires_at <= at));
    claimable := claimable || array(select given.place from unnest(overdue) as given (place) where given.place <> all (ending));
    if logs then
        perform signaling.log_lost_attempts(overdue);
    end if;
    with ended as (
        update signaling.outbox
        set status = case when claim_id is not null and at_most_once then 'unknown'
                          when expires_at <= at then 'expired'
                          else 'failed' end,
            finished_at = at,
            attempts = attempts + (claim_id is not null)::integer,
            error = case when not logs then error
                         when claim_id is not null then signaling.lost_text()
                         else coalesce(error, 'not sent before its expires_at') end
        where ctid = any (ending)
        returning status
    )
    select count(*) filter (where status = 'expired'), count(*) filter (where status = 'unknown'),
           count(*) filter (where status = 'failed')
    into expired, unknown, failed from ended;

    -- A trigger may skip an update without an error. Such a message is not sent again either.
    refused := cardinality(ending) - expired - unknown - failed;
    if refused > 0 then
        perform signaling.refuse(
            array(select ctid from signaling.outbox where ctid = any (ending) and status = 'pending'), at, null, null);
    end if;
end
$$;
