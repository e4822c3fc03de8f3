-- The range of ids that a page reads: the newest $4 messages below $1 that can match, and the id before which the next page
-- continues. Messages before the time $2, or at or after the time $3, can't match. Bisects the ids to find about where these
-- times lie. A transaction may be open for long before it inserts, so ids are only roughly in the order of `created_at`.
with recursive newest as (
    select coalesce(max(id), 0) as id from signaling.outbox where id < $1
), search (since, low, high) as (
    select since, 1::bigint, newest.id + 1 from newest, unnest(array[$2, $3]::timestamptz[]) as since where since is not null
    union all
    select since, case when found.created_at < since then found.id + 1 else low end,
           case when found.created_at < since then high else middle end
    from search
         cross join lateral (select low + (high - low) / 2 as middle) as half
         left join lateral (select id, created_at from signaling.outbox where id >= middle order by id limit 1) as found on true
    where low < high
), bounds as (
    select least(newest.id, (select min(low) + 10000 from search where low >= high and since = $3)) as highest,
           greatest(1, (select min(low) - 10000 from search where low >= high and since = $2)) as lowest
    from newest
)
select highest, coalesce(next.id + 1, lowest) as lowest, next.id + 1 as next_before
from bounds left join lateral (
    select id from signaling.outbox where id <= highest and id >= lowest order by id desc offset $4 limit 1
) as next on true
