-- Ends messages that must not be called any more, out of some that the caller has locked: as `unknown` those that may be
-- sent once only and had a worker that never recorded, as `expired` those whose time is over. And logs the attempt that
-- a lost worker may have made, whether its message ends or not.
--
-- Reaches the messages by their ctid.
create or replace function signaling.end_overdue(
    places tid[], at timestamptz, out expired integer, out unknown integer
)
    language plpgsql
as $$
#variable_conflict use_column
declare
    lost_text constant text := 'the worker that had this message ended without a record: whether it was called is not known';
begin
    expired := 0;
    unknown := 0;
    if cardinality(places) = 0 then
        return;
    end if;
    insert into signaling.attempt (message_id, attempt, outcome, error, fault, charged, claimed_by)
    select id, attempts + uncharged + 1, 'lost', lost_text, 'worker', true, claimed_by
    from signaling.outbox where ctid = any (places) and claim_id is not null;

    with ended as (
        update signaling.outbox
        set status = case when claim_id is not null and at_most_once then 'unknown' else 'expired' end,
            finished_at = at,
            attempts = attempts + (claim_id is not null)::integer,
            error = case when claim_id is not null then lost_text
                         else coalesce(error, 'not sent before its expires_at') end
        where ctid = any (places) and (claim_id is not null and at_most_once or expires_at <= at)
        returning status
    )
    select count(*) filter (where status = 'expired'), count(*) filter (where status = 'unknown')
    into expired, unknown from ended;
end
$$;
