-- Gives claims back that made no attempt: their messages, if the worker never got to know them, and the probe of a held
-- lane. Returns the claims that had messages.
--
-- When the messages were due is not known any more; that they were is. So they are due since they were inserted.
--
-- A message that a trigger or a constraint keeps from being changed stays claimed until its lease ends.
-- Locks the lane's row, if one of the claims probes it, and the messages; passes over messages that are locked.
-- Indexes: lane_pkey; outbox_retries, from now on: the leases of these messages have not ended.
create or replace function signaling.release(app text, claim_ids uuid[]) returns setof uuid
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on set jit = off
as $$
#variable_conflict use_column
declare
    at timestamptz := clock_timestamp();
    places tid[];
begin
    perform signaling.assert_session();
    update signaling.lane set hold_until = at, probe_claim_id = null
    where app = release.app and probe_claim_id = any (claim_ids);

    places := array(
        select ctid from signaling.outbox
        where app = release.app and status = 'pending' and (sent_at is not null or claim_id is not null)
          and due_at > at and claim_id = any (claim_ids)
        for no key update skip locked);
    return query select distinct claim_id from signaling.outbox where ctid = any (places);
    perform signaling.change_each(
        'update signaling.outbox set claim_id = null, claimed_by = null, due_at = least(created_at, $2) where ctid = any ($1)',
        places, at);
end
$$;
