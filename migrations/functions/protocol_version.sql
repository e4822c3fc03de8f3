-- The version of this set of functions. Each change of a function that a worker calls raises the version. So `worker migrate`
-- never replaces newer functions by older ones, and a worker notices functions that are too old.
create or replace function signaling.protocol_version() returns integer
    language sql immutable parallel safe
as 'select 1';
