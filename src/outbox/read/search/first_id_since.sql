-- Bisects the ids up to $1: about where the messages begin that were inserted since $2.
with recursive search (low, high) as (
    select 1::bigint, $1::bigint + 1
    union all
    select case when found.created_at < $2 then found.id + 1 else low end,
           case when found.created_at < $2 then high else middle end
    from search
         cross join lateral (select low + (high - low) / 2 as middle) as half
         left join lateral (select id, created_at from signaling.outbox where id >= middle order by id limit 1) as found on true
    where low < high
)
select low from search where low >= high
