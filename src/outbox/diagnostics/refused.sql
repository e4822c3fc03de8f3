-- Messages that a trigger or a constraint of the application keeps from changing.
select format('the database refuses to change %s messages, such as %s (%s), so the workers do not send these messages', count(*),
              max(message_id),
              coalesce(nullif((array_agg(concat_ws(' ', code, constraint_name) order by refused_at desc))[1], ''),
                       'a trigger skips the update')) as found
from signaling.refused
having count(*) > 0
