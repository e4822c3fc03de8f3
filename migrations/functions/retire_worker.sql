-- Deletes a worker that stops. Otherwise operators would take it for one that died.
--
-- Locks the rows of this worker.
-- Indexes: worker_pkey, worker_app_worker.
create or replace function signaling.retire_worker(worker_id uuid) returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set row_security = off set enable_seqscan = off set jit = off
as $$
begin
    perform signaling.assert_session();
    delete from signaling.worker where worker.worker_id = $1;
end
$$;
