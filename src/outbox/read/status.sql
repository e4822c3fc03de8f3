-- The status of each app: lane and pending messages (lanes.sql), rates of calls, and messages by final status in 24 hours.
select app, lane, pending, coalesce(finished, '{}') as finished_24h,
       case when lane is null then 0
            else signaling.peak_rate(app, clock_timestamp() - interval '1 minute', clock_timestamp()) end as peak_calls_1m,
       case when lane is null then 0
            else (select count(*) / 10.0::float8
                  from signaling.calls(app, clock_timestamp() - interval '10 seconds', clock_timestamp())) end as rate_per_s
from lanes left join (
    select app, jsonb_strip_nulls(jsonb_build_object(
               'message_sent', nullif(sum(message_sent), 0), 'message_delivered', nullif(sum(message_delivered), 0),
               'message_offline', nullif(sum(message_offline), 0), 'failed', nullif(sum(failed), 0),
               'expired', nullif(sum(expired), 0), 'unknown', nullif(sum(unknown), 0))) as finished
    from signaling.minute_stats where minute > now() - interval '24 hours' group by app
) as finished using (app)
order by app collate "C"
