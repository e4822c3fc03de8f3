-- Fails if no worker has ever served an app. The error names the known apps.
create or replace function signaling.refuse_unknown_app(app text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off
as $$
begin
    if not exists (select from signaling.lane where lane.app = $1) then
        raise exception 'there is no app %', coalesce(quote_literal($1), 'null')
            using errcode = 'no_data_found',
                  hint = coalesce('the apps are: ' || (select string_agg(lane.app, ', ' order by lane.app) from signaling.lane),
                                  'no worker has been started yet');
    end if;
end
$$;
