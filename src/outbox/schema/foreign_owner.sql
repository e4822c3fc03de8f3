-- An owner of the schema or of an object in it, if this role is not a member of that owner.
select current_user::text, pg_get_userbyid(owner)::text
from (select nspowner from pg_namespace where nspname = 'signaling'
      union select relowner from pg_class where relnamespace = 'signaling'::regnamespace
      union select proowner from pg_proc where pronamespace = 'signaling'::regnamespace) as owned (owner)
where not pg_has_role(owner, 'usage') limit 1
