-- The error text of an attempt that a lost worker may have made.
create or replace function signaling.lost_text() returns text
    language sql immutable
as $$
    select 'the worker that had this message ended without a record: whether it was called is not known'
$$;
