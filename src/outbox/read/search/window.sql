-- Messages that a filter lets through, newest first, with ids from $1 down to $2. The range bounds the rows that Postgres
-- reads by the primary key, which alone has this order. If $11 lists ids, only these messages match. `id + 0` then keeps
-- Postgres from reading down the primary key past all other messages.
select id, app, sender, destination, channel_name, state, attempts, uncharged, http_status, error, created_at, next_attempt_at,
       finished_at, clock_timestamp() as now
from signaling.delivery_status
where id <= $1 and id >= $2
  and ($3::text is null or app = $3)
  and ($4::text is null or state = $4 or $4 = 'pending' and status = 'pending')
  and ($5::text is null or destination = $5 or channel_name = $5)
  and ($6::text is null or sender = $6)
  and ($7::timestamptz is null or created_at >= $7)
  and ($8::timestamptz is null or created_at < $8)
  and ($9::text is null or strpos(lower(error), lower($9)) > 0)
  and ($11::bigint[] is null or id = any ($11))
order by case when $11::bigint[] is null then id else id + 0 end desc limit $10
