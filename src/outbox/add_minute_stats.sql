-- Adds figures to their minutes, one array a column; histograms as text, because arrays of arrays are none of SQL's.
-- In the order of the key, so that two processes never wait for each other.
insert into signaling.rollup as kept (minute, app, message_sent, message_delivered, message_offline, failed, expired,
                                      unknown, calls_retry, calls_throttled, calls_rejected, calls_unauthorized,
                                      calls_ambiguous, slots_missed, call_time, delay)
select minute, app, message_sent, message_delivered, message_offline, failed, expired, unknown, calls_retry,
       calls_throttled, calls_rejected, calls_unauthorized, calls_ambiguous, slots_missed, call_time::bigint[],
       delay::bigint[]
from unnest($1::timestamptz[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
            $15::text[], $16::text[])
    as done (minute, app, message_sent, message_delivered, message_offline, failed, expired, unknown, calls_retry,
             calls_throttled, calls_rejected, calls_unauthorized, calls_ambiguous, slots_missed, call_time, delay)
order by minute, app
on conflict (minute, app) do update
set message_sent = kept.message_sent + excluded.message_sent,
    message_delivered = kept.message_delivered + excluded.message_delivered,
    message_offline = kept.message_offline + excluded.message_offline,
    failed = kept.failed + excluded.failed,
    expired = kept.expired + excluded.expired,
    unknown = kept.unknown + excluded.unknown,
    calls_retry = kept.calls_retry + excluded.calls_retry,
    calls_throttled = kept.calls_throttled + excluded.calls_throttled,
    calls_rejected = kept.calls_rejected + excluded.calls_rejected,
    calls_unauthorized = kept.calls_unauthorized + excluded.calls_unauthorized,
    calls_ambiguous = kept.calls_ambiguous + excluded.calls_ambiguous,
    slots_missed = kept.slots_missed + excluded.slots_missed,
    -- The minute's row may have been made by the census, with empty histograms.
    call_time = array(select coalesce(old, 0) + coalesce(new, 0)
                      from unnest(kept.call_time, excluded.call_time) with ordinality as bucket (old, new, place)
                      order by place),
    delay = array(select coalesce(old, 0) + coalesce(new, 0)
                  from unnest(kept.delay, excluded.delay) with ordinality as bucket (old, new, place)
                  order by place)
