-- Finds out which messages can be claimed: claims each message, and undoes the claim. Lists the refused messages in
-- signaling.refused.
-- Each message costs a subtransaction, so only a claim that follows a failed one calls this.
--
-- stops_at       tests no further message from then on, because Postgres would end the whole claim
--
-- Returns the ctids of the claimable messages, and how many are refused. Messages that are neither were not tested.
create or replace function signaling.keep_claimable(
    places tid[], claim_id uuid, claimed_by text, lease_ends_at timestamptz, at timestamptz, stops_at timestamptz,
    out claimable tid[], out refused integer
)
    language plpgsql
as $$
#variable_conflict use_column
declare
    -- The code of the error that undoes a claim which has succeeded.
    undone constant text := 'SGUND';
    place tid;
    began_at timestamptz;
    name text;
    context text;
begin
    claimable := '{}';
    refused := 0;
    -- Messages that were refused before come last, because one of them may use up the time.
    for place in
        select given.place
        from unnest(places) with ordinality as given (place, nth) join signaling.outbox on outbox.ctid = given.place
        order by exists (select from signaling.refused where refused.app = outbox.app and message_id = outbox.id), nth
    loop
        began_at := clock_timestamp();
        exit when began_at >= stops_at;
        begin
            update signaling.outbox
            set claim_id = keep_claimable.claim_id, claimed_by = keep_claimable.claimed_by, due_at = lease_ends_at,
                attempts = attempts + (claim_id is not null)::integer
            where ctid = place;
            if not found then
                -- A trigger has skipped the update.
                perform signaling.refuse(array[place], at, null, null);
                refused := refused + 1;
                continue;
            end if;
            -- Runs deferred triggers now. At the commit, their error would not name the message.
            set constraints all immediate;
            raise exception using errcode = undone;
        exception when query_canceled or assert_failure or others then
            get stacked diagnostics context = pg_exception_context, name = constraint_name;
            if sqlstate = undone then
                claimable := claimable || place;
            elsif signaling.is_refusal(sqlstate, context, began_at) then
                perform signaling.refuse(array[place], at, sqlstate, name);
                refused := refused + 1;
            else
                raise;
            end if;
        end;
    end loop;
end
$$;
