-- Tests which messages can be claimed: claims each one and undoes that. Lists the others in signaling.refused, because a
-- trigger or a constraint refuses them. Each message costs a subtransaction, so only a claim that has failed before calls
-- this.
--
-- Returns the ctids of the claimable messages.
create or replace function signaling.keep_claimable(
    places tid[], claim_id uuid, claimed_by text, lease_ends_at timestamptz, at timestamptz
) returns tid[]
    language plpgsql
as $$
#variable_conflict use_column
declare
    -- The code of the error that undoes a claim which has succeeded.
    undone constant text := 'SGUND';
    kept tid[] := '{}';
    place tid;
    name text;
    context text;
begin
    foreach place in array places loop
        begin
            update signaling.outbox
            set claim_id = keep_claimable.claim_id, claimed_by = keep_claimable.claimed_by, due_at = lease_ends_at,
                attempts = attempts + (claim_id is not null)::integer
            where ctid = place;
            if not found then
                -- A trigger has skipped the update.
                perform signaling.refuse(array[place], at, null, null);
                continue;
            end if;
            -- Runs deferred triggers now. At the commit, their error would not name the message.
            set constraints all immediate;
            raise exception using errcode = undone;
        exception when query_canceled or assert_failure or others then
            get stacked diagnostics context = pg_exception_context;
            if sqlstate = undone then
                kept := kept || place;
            elsif signaling.is_refusal(sqlstate, context) then
                get stacked diagnostics name = constraint_name;
                perform signaling.refuse(array[place], at, sqlstate, name);
            else
                raise;
            end if;
        end;
    end loop;
    return kept;
end
$$;
