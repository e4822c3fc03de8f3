-- `drop` statements for functions named in $1 that have another head than in $2, or an owner who lacks the privileges of outbox's
-- owner.
select format('drop function %s', pg_proc.oid::regprocedure)
from pg_proc join unnest($1::text[], $2::text[]) as own (name, head) on proname = own.name
     left join pg_class as outbox on outbox.oid = to_regclass('signaling.outbox')
where pronamespace = to_regnamespace('signaling')
  and (format('(%s) returns %s', pg_get_function_arguments(pg_proc.oid), pg_get_function_result(pg_proc.oid)) <> head
       or prosecdef and not pg_has_role(proowner, relowner, 'usage'))
