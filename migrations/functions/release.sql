-- Releases the messages of a claim whose result never reached the worker, and the probe of a held lane that showed nothing
-- about the API. The claim has overwritten the due times, so the messages are due since their insert.
--
-- Returns the claims that had messages. A message that the database refuses to change stays claimed until its lease ends.
-- Locks the lane's row, if one of the claims is its probe, and the messages; skips messages that are locked.
-- Indexes: lane_pkey; outbox_retries, from the present on, because the leases of these messages have not ended.
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
