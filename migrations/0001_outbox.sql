-- The outbox, its attempts and its lanes. Everything lives in the schema `signaling`, which `worker migrate`
-- creates before it runs this file.

-- One row per message. The first block of columns is the producer's, the second one the worker's.
create table signaling.outbox (
    id                          bigint generated always as identity primary key,
    app                         text        not null default 'default',
    sender                      text        not null,
    destination                 text,
    channel_name                text,
    payload                     text        not null,
    wait_for_ack                boolean     not null default false,
    enable_offline_messaging    boolean     not null default false,
    enable_historical_messaging boolean     not null default false,
    due_at                      timestamptz not null default now(),
    expires_at                  timestamptz,
    max_attempts                integer     not null default 10,
    at_most_once                boolean     not null default false,
    dedupe_key                  text,
    traceparent                 text,
    created_at                  timestamptz not null default now(),

    status                      text        not null default 'pending',
    attempts                    integer     not null default 0,
    claim_id                    uuid,
    claimed_by                  text,
    sent_at                     timestamptz,
    finished_at                 timestamptz,
    http_status                 integer,
    request_id                  text,
    error                       text,

    -- What the API demands. A constraint is named for the mistake that it refuses, because its name is what
    -- the producer's driver shows. Postgres checks them in the order of their names.
    constraint app_is_not_a_name_of_1_to_64_letters_digits_dots_dashes
        check (app ~ '^[A-Za-z0-9._-]{1,64}$'),
    constraint sender_is_empty
        check (sender <> ''),
    constraint sender_is_longer_than_64_characters
        check (char_length(sender) <= 64),
    constraint sender_has_a_forbidden_character
        check (sender ~ '^[A-Za-z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}|~,'']*$'),
    constraint sender_begins_or_ends_with_a_space
        check (sender !~ '^ | $'),
    -- A URL path can't carry these as a segment: every URL library takes them for "here" and "up".
    constraint sender_is_a_dot_segment
        check (sender not in ('.', '..')),
    constraint destination_is_empty
        check (destination <> ''),
    constraint destination_is_longer_than_64_characters
        check (char_length(destination) <= 64),
    constraint destination_has_a_forbidden_character
        check (destination ~ '^[A-Za-z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}|~,'']*$'),
    constraint destination_begins_or_ends_with_a_space
        check (destination !~ '^ | $'),
    constraint channel_name_is_empty
        check (channel_name <> ''),
    constraint channel_name_is_longer_than_64_characters
        check (char_length(channel_name) <= 64),
    constraint channel_name_has_a_forbidden_character
        check (channel_name ~ '^[A-Za-z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}|~,'']*$'),
    constraint channel_name_begins_or_ends_with_a_space
        check (channel_name !~ '^ | $'),
    constraint neither_destination_nor_channel_name_is_given
        check (destination is not null or channel_name is not null),
    constraint both_destination_and_channel_name_are_given
        check (destination is null or channel_name is null),
    constraint payload_is_empty
        check (payload <> ''),
    -- The API counts bytes of UTF-8, whatever the encoding of this database is.
    constraint payload_is_longer_than_32768_bytes
        check (octet_length(convert_to(payload, 'UTF8')) <= 32768),
    constraint wait_for_ack_is_for_peer_messages_only
        check (not wait_for_ack or destination is not null),
    constraint enable_offline_messaging_is_for_peer_messages_only
        check (not enable_offline_messaging or destination is not null),
    constraint max_attempts_is_not_between_1_and_1000
        check (max_attempts between 1 and 1000),
    constraint dedupe_key_is_empty_or_longer_than_256_characters
        check (char_length(dedupe_key) between 1 and 256),
    constraint traceparent_is_longer_than_128_characters
        check (char_length(traceparent) <= 128),
    -- An infinite time can't be compared with a clock that a worker computes with.
    constraint due_at_is_not_a_finite_time
        check (isfinite(due_at)),
    constraint expires_at_is_not_a_finite_time
        check (isfinite(expires_at)),

    -- What the states mean.
    constraint status_is_not_a_known_status
        check (status in ('pending', 'message_sent', 'message_delivered', 'message_offline',
                          'failed', 'expired', 'cancelled', 'unknown')),
    constraint finished_at_is_null_exactly_while_pending
        check ((status = 'pending') = (finished_at is null)),
    constraint attempts_is_negative
        check (attempts >= 0),
    constraint a_sent_message_needs_sent_at
        check (status not in ('message_sent', 'message_delivered', 'message_offline') or sent_at is not null)
)
-- A message is written three times (insert, claim, record): room on the page keeps its versions together.
with (fillfactor = 70,
      autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
      autovacuum_analyze_scale_factor = 0.05);

-- Serve the claim: the due rows of one app, oldest first. Rows that were never claimed stand apart from those that
-- were, so that neither kind has to be searched for among any number of the other.
create index outbox_fresh on signaling.outbox (app, due_at, id)
    where status = 'pending' and sent_at is null and claim_id is null;
create index outbox_again on signaling.outbox (app, due_at, id)
    where status = 'pending' and (sent_at is not null or claim_id is not null);
-- Serves the expiry of rows that wait for a later time or in a lane that is held.
create index outbox_expiring on signaling.outbox (app, expires_at) where status = 'pending' and expires_at is not null;
-- Serves signaling.peak_rate(): calls by time. A block range index costs next to nothing to keep.
create index outbox_sent on signaling.outbox using brin (sent_at) with (pages_per_range = 32, autosummarize = on);
-- Makes the producer's insert idempotent: `insert … on conflict do nothing`.
create unique index outbox_dedupe on signaling.outbox (app, dedupe_key) where dedupe_key is not null;

comment on table signaling.outbox is
    'Messages to send: insert a row in your own transaction, read its status here. One row per message.';
comment on column signaling.outbox.app is 'Which configured app sends it: an alias, not the app ID.';
comment on column signaling.outbox.sender is 'The user_id of the API: who the message is from.';
comment on column signaling.outbox.destination is 'Receiver of a peer message; null for a channel message.';
comment on column signaling.outbox.channel_name is 'Channel of a channel message; null for a peer message.';
comment on column signaling.outbox.payload is '1 to 32,768 bytes of UTF-8.';
comment on column signaling.outbox.wait_for_ack is 'Peer messages only: wait for the receiver, so that the status tells delivered from offline.';
comment on column signaling.outbox.due_at is
    'Earliest time of the next call. While a worker has the row, the end of its lease.';
comment on column signaling.outbox.expires_at is 'Not sent after this time: the row ends as expired.';
comment on column signaling.outbox.max_attempts is 'Calls that may go wrong before the row ends as failed.';
comment on column signaling.outbox.at_most_once is
    'Never called again after a call whose outcome is not known: the row ends as unknown.';
comment on column signaling.outbox.dedupe_key is 'Unique per app: insert … on conflict do nothing.';
comment on column signaling.outbox.attempts is
    'Calls that were made, or may have been made by a worker that died. A 429 does not count.';
comment on column signaling.outbox.claim_id is
    'The claim that has the row, or that finished it. Null while nobody has it.';
comment on column signaling.outbox.sent_at is 'Start of the last call, on the clock of this database.';
comment on column signaling.outbox.error is 'What went wrong at the last call.';

-- One row per call that did not end its message well, and one per claim that ended without a record.
create table signaling.attempt (
    id          bigint generated always as identity primary key,
    message_id  bigint      not null references signaling.outbox on delete cascade,
    attempt     integer     not null,
    sent_at     timestamptz,
    duration    interval,
    http_status integer,
    outcome     text        not null,
    error       text,
    claimed_by  text,
    recorded_at timestamptz not null default clock_timestamp(),
    constraint outcome_is_not_a_known_outcome
        check (outcome in ('retry', 'throttled', 'rejected', 'unauthorized', 'ambiguous', 'lost'))
);
create index attempt_of_message on signaling.attempt (message_id, id);
create index attempt_sent on signaling.attempt using brin (sent_at) with (pages_per_range = 32, autosummarize = on);

comment on table signaling.attempt is 'Calls that did not end their message well, oldest first by id.';
comment on column signaling.attempt.attempt is 'Which call of the message this was, from 1. A call answered 429 shares its number with the next one.';
comment on column signaling.attempt.outcome is
    'retry: worth another call. throttled: 429. rejected: never worth another call. unauthorized: 401 or 403. ambiguous: it may have had its effect. lost: the worker that had the row died, so whether it called is not known.';

-- One row per app: the budget of calls that all workers share.
create table signaling.lane (
    app          text             primary key,
    limit_per_s  double precision not null,
    rate_per_s   double precision not null,
    next_slot_at timestamptz      not null default 'epoch',
    bell_until   timestamptz,

    hold         text,
    hold_reason  text,
    hold_since   timestamptz,
    hold_until   timestamptz,
    hold_probes  integer          not null default 0,

    constraint limit_per_s_is_not_between_1_and_a_million check (limit_per_s between 1 and 1000000),
    constraint rate_per_s_is_not_positive check (rate_per_s > 0),
    constraint hold_is_not_a_known_hold check (hold in ('parked', 'broken')),
    constraint a_hold_needs_its_times
        check ((hold is null) = (hold_since is null) and (hold is null) = (hold_until is null))
)
-- Every claim writes this row: its versions stay on one page, and are cleaned up there.
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.lane is 'One row per app: its budget of calls, shared by every worker, and its state.';
comment on column signaling.lane.limit_per_s is 'Calls a second that the API allows this app.';
comment on column signaling.lane.rate_per_s is 'Slots a second that are given out: less than the limit, so that calls which start late within the tolerance stay within it.';
comment on column signaling.lane.next_slot_at is 'The next send slot that nobody has taken.';
comment on column signaling.lane.bell_until is 'Until then some worker sleeps and is to be notified of inserts.';
comment on column signaling.lane.hold is
    'parked: the API refuses the credentials. broken: the API can''t be reached or answers with errors. Null: sending.';
comment on column signaling.lane.hold_until is 'When one call is tried again.';

-- The row as a person wants to read it.
create view signaling.delivery as
select id, app, sender, destination, channel_name, status,
       case when status <> 'pending' then status
            when claim_id is not null and due_at > statement_timestamp() then 'sending'
            when sent_at is not null or attempts > 0 then 'retrying'
            when due_at > statement_timestamp() then 'scheduled'
            else 'queued'
       end as state,
       case when status = 'pending' and claim_id is null then due_at end as next_attempt_at,
       coalesce(finished_at, statement_timestamp()) - created_at as age,
       attempts, max_attempts, http_status, error, request_id,
       created_at, sent_at, finished_at, expires_at, wait_for_ack, at_most_once, dedupe_key, claimed_by, payload
from signaling.outbox;

comment on view signaling.delivery is
    'The outbox for people: state is scheduled, queued, sending, retrying, or the final status.';

-- A row is born pending: what became of it is the worker's to write.
create function signaling.refuse_finished_insert() returns trigger
    language plpgsql set search_path = ''
as $$
begin
    raise exception 'a message is inserted as pending: leave status, attempts and the worker''s other columns to their defaults'
        using errcode = 'check_violation', constraint = 'message_is_not_inserted_as_pending',
              schema = 'signaling', table = 'outbox';
end
$$;
create trigger message_is_inserted_as_pending
    before insert on signaling.outbox
    for each row
    when (new.status <> 'pending' or new.attempts <> 0 or new.claim_id is not null or new.claimed_by is not null
          or new.sent_at is not null or new.finished_at is not null or new.http_status is not null
          or new.request_id is not null or new.error is not null)
execute function signaling.refuse_finished_insert();

-- The doorbell. NOTIFY takes a lock over all commits of the cluster, so it rings only where some worker sleeps.
create function signaling.ring_bell() returns trigger
    language plpgsql security definer set search_path = ''
as $$
begin
    perform pg_notify('signaling_bell', lane.app)
    from signaling.lane
    where lane.bell_until > clock_timestamp()
      and exists (select from inserted where inserted.app = lane.app);
    return null;
end
$$;
create trigger ring_bell
    after insert on signaling.outbox
    referencing new table as inserted
    for each statement execute function signaling.ring_bell();

-- Cancels a message that is not being sent. True if it did; false if the message is being sent, is final, or
-- does not exist.
create function signaling.cancel(id bigint) returns boolean
    language sql volatile set search_path = ''
as $$
    with cancelled as (
        update signaling.outbox
        set status = 'cancelled', finished_at = clock_timestamp(),
            error = case when claim_id is not null
                         then 'cancelled after a worker died with it: whether it was called is not known'
                         else error end
        where outbox.id = $1
          and outbox.status = 'pending'
          and (outbox.claim_id is null or outbox.due_at <= clock_timestamp())
        returning 1
    )
    select exists (select from cancelled)
$$;
comment on function signaling.cancel(bigint) is
    'Cancels a pending message that is not being sent; says whether it did.';
