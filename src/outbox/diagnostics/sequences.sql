-- Sequences of ids that are behind their tables. The function `take_free_id` gives attempts a free id, so only inserts of
-- messages fail.
select format('%s has ids up to %s, and its sequence gives out %s next: ', table_name, newest_id, next_id)
           || case table_name when 'signaling.attempt' then 'its rows get free ids'
              else format('after %s inserts, the insert with id %s fails with a duplicate key', taken_id - next_id, taken_id) end
           as found,
       statement, table_name = 'signaling.outbox' and taken_id = next_id as fails
from signaling.sequences_behind()
