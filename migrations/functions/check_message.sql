-- Trigger on inserts, and on updates of a producer's columns: refuses messages that the API would refuse. The error is a
-- check violation. Its constraint is the name of the mistake, because drivers show that name to the producer.
--
-- CHECK constraints would be too slow. Postgres prepares all constraints of a table for each statement, even for a statement
-- that writes no producer's column: thirty constraints took two thirds of an insert's time, and as much of a claim's.
create or replace function signaling.check_message() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    -- The characters that the API allows in user ids and channel names.
    allowed constant text := '^[A-Za-z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}|~,'']*$';
    mistake text := case
        -- A bounded repetition in the expression would take eight times as long as this second condition.
        when new.app !~ '^[A-Za-z0-9._-]+$' or char_length(new.app) > 64
            then 'app_is_not_a_name_of_1_to_64_letters_digits_dots_dashes'
        when new.destination is null and new.channel_name is null
            then 'neither_destination_nor_channel_name_is_given'
        when new.destination is not null and new.channel_name is not null
            then 'both_destination_and_channel_name_are_given'

        when new.sender = '' then 'sender_is_empty'
        when char_length(new.sender) > 64 then 'sender_is_longer_than_64_characters'
        when new.sender !~ allowed then 'sender_has_a_forbidden_character'
        when new.sender like ' %' or new.sender like '% ' then 'sender_begins_or_ends_with_a_space'
        -- URL libraries remove these segments from a path.
        when new.sender in ('.', '..') then 'sender_is_a_dot_segment'

        when new.destination = '' then 'destination_is_empty'
        when char_length(new.destination) > 64 then 'destination_is_longer_than_64_characters'
        when new.destination !~ allowed then 'destination_has_a_forbidden_character'
        when new.destination like ' %' or new.destination like '% ' then 'destination_begins_or_ends_with_a_space'

        when new.channel_name = '' then 'channel_name_is_empty'
        when char_length(new.channel_name) > 64 then 'channel_name_is_longer_than_64_characters'
        when new.channel_name !~ allowed then 'channel_name_has_a_forbidden_character'
        when new.channel_name like ' %' or new.channel_name like '% ' then 'channel_name_begins_or_ends_with_a_space'

        when new.payload = '' then 'payload_is_empty'
        when octet_length(new.payload) > 32768 then 'payload_is_longer_than_32768_bytes'
        when new.wait_for_ack and new.destination is null then 'wait_for_ack_is_for_peer_messages_only'
        when new.enable_offline_messaging and new.destination is null
            then 'enable_offline_messaging_is_for_peer_messages_only'
        when new.max_attempts not between 1 and 1000 then 'max_attempts_is_not_between_1_and_1000'
        when char_length(new.dedupe_key) not between 1 and 256 then 'dedupe_key_is_empty_or_longer_than_256_characters'
        when char_length(new.traceparent) > 128 then 'traceparent_is_longer_than_128_characters'
    end;
begin
    -- A restored row may have a final status, or a payload that an older version accepted. The setting works only for roles
    -- that could drop this trigger, because a producer could otherwise insert messages as already sent.
    if tg_op = 'INSERT' and current_setting('signaling.restoring', true) = 'on'
       and pg_has_role((select relowner from pg_class where oid = tg_relid), 'usage') then
        return new;
    end if;
    if mistake is not null then
        raise exception 'the message is refused: %', replace(mistake, '_', ' ')
            using errcode = 'check_violation', constraint = mistake, schema = 'signaling', table = 'outbox';
    end if;
    -- A producer's value in a column of the worker would hide the message, or end it early: with an old failing_since, the
    -- first failure would be the last.
    if tg_op = 'INSERT'
       and (new.status <> 'pending' or new.attempts <> 0 or new.uncharged <> 0 or new.failing_since is not null
            or new.claim_id is not null or new.claimed_by is not null
            or new.sent_at is not null or new.finished_at is not null or new.http_status is not null
            or new.request_id is not null or new.error is not null) then
        raise exception 'a message is inserted as pending: leave status, attempts and the worker''s other columns to their defaults'
            using errcode = 'check_violation', constraint = 'message_is_not_inserted_as_pending',
                  schema = 'signaling', table = 'outbox';
    end if;
    return new;
end
$$;
