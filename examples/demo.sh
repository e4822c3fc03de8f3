#!/bin/sh
# Sends sample messages through a throwaway Postgres, the simulated API and a worker:
#   worker dev -- sh examples/demo.sh [MESSAGES]
# Of twenty messages, eleven go to peers, six to channels, two to recipients that are offline, and one to a recipient whose
# first call fails.
set -eu
count=${1:-2000}
command -v psql >/dev/null || { echo "examples/demo.sh needs psql. Install the client programs of PostgreSQL." >&2; exit 1; }

ask() { psql -qAtX -v ON_ERROR_STOP=1 -c "$1"; }

ask "insert into signaling.outbox (sender, destination, channel_name, wait_for_ack, payload)
     select 'sender-' || n % 7,
            case when n % 20 in (17, 18) then 'offline-' || n when n % 20 = 19 then 'flaky-' || n
                 when n % 20 < 11 then 'user-' || n end,
            case when n % 20 between 11 and 16 then 'channel-' || n % 5 end,
            n % 20 in (6, 7, 8, 9, 10, 17, 18),
            json_build_object('sample', n, 'text', 'Hello from the outbox')
     from generate_series(0, $count - 1) as n"
final=0 idle_s=0
while [ "$final" -lt "$count" ]; do
    sleep 1
    before=$final
    final=$(ask "select count(finished_at) from signaling.outbox")
    echo "$final of $count final, $((final - before)) in the last second"
    [ "$final" -gt "$before" ] && idle_s=0 || idle_s=$((idle_s + 1))
    [ "$idle_s" -lt 60 ] || { echo "No message became final for $idle_s s." >&2; exit 1; }
done

psql -qX -c "select status, count(*) as messages, count(*) filter (where attempts > 1) as after_a_retry
             from signaling.outbox group by status order by status"
wrong=$(ask "select count(*) from signaling.outbox
             where status <> case when channel_name is not null or not wait_for_ack then 'message_sent'
                                  when destination like 'offline-%' then 'message_offline' else 'message_delivered' end
                or attempts <> case when destination like 'flaky-%' then 2 else 1 end")
[ "$wrong" -eq 0 ] || { echo "$wrong of $count messages did not end as they should."; exit 1; }
echo "Every message ended as it should."
