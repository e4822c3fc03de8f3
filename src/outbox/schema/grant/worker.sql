-- A worker and its operators: `worker run`, `status`, `pause`, `resume`, `limit`, `retry` and `cancel`.
grant usage on schema signaling to :"role";
grant select on signaling.outbox, signaling.attempt, signaling.lane, signaling.delivery, signaling.delivery_status,
    signaling.retention, signaling.schema_migrations to :"role";
-- expires_at: signaling.retry() drops an expiry that is over.
grant update (status, due_at, expires_at, attempts, claim_id, claimed_by, sent_at, finished_at, http_status, request_id, error)
    on signaling.outbox to :"role";
grant insert (message_id, attempt, sent_at, duration, http_status, outcome, error, claimed_by)
    on signaling.attempt to :"role";
grant insert (app, limit_per_s, configured_per_s, rate_per_s) on signaling.lane to :"role";
grant update (limit_per_s, configured_per_s, limit_set_by, limit_set_at, rate_per_s, rate_at, throttled_at, next_slot_at,
              bell_until, hold, hold_reason, hold_since, hold_until, hold_probes, probe_claim_id,
              paused_at, paused_by, pause_reason, generation)
    on signaling.lane to :"role";
grant execute on function signaling.slot_rate, signaling.present_rate, signaling.calls, signaling.peak_rate to :"role";
grant execute on function signaling.refuse_unknown_app to :"role";
grant execute on function signaling.pause, signaling.resume, signaling.set_limit to :"role";
grant execute on function signaling.retry, signaling.cancel to :"role";
grant execute on function signaling.delete_finished to :"role";
grant select on signaling.rollup, signaling.census, signaling.census_turn to :"role";
grant insert (minute, app, message_sent, message_delivered, message_offline, failed, expired, unknown, calls_retry, calls_throttled,
              calls_rejected, calls_unauthorized, calls_ambiguous, slots_missed, call_time, delay)
    on signaling.rollup to :"role";
grant update (message_sent, message_delivered, message_offline, failed, expired, unknown, calls_retry, calls_throttled,
              calls_rejected, calls_unauthorized, calls_ambiguous, slots_missed, call_time, delay)
    on signaling.rollup to :"role";
grant execute on function signaling.take_census to :"role";
