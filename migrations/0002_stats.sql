-- Minute stats and queue counts, so that status queries do not read the whole outbox.

-- One row for each app and minute. Workers add their counters once a second. A worker that is killed loses the stats of its
-- last second.
create table signaling.minute_stats (
    minute             timestamptz not null,
    app                text        not null,
    message_sent       bigint      not null default 0,
    message_delivered  bigint      not null default 0,
    message_offline    bigint      not null default 0,
    failed             bigint      not null default 0,
    expired            bigint      not null default 0,
    unknown            bigint      not null default 0,
    calls_transient    bigint      not null default 0,
    calls_throttled    bigint      not null default 0,
    calls_rejected     bigint      not null default 0,
    calls_unauthorized bigint      not null default 0,
    calls_ambiguous    bigint      not null default 0,
    slots_missed       bigint      not null default 0,
    call_time          bigint[]    not null default '{}',
    queue_wait         bigint[]    not null default '{}',
    backlog            bigint,
    primary key (minute, app)
)
-- Free space on each page keeps the versions of a row together: workers write it some hundred times.
with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.minute_stats is
    'Counters of an app''s workers by minute, kept for 8 days. About a second late. A killed worker loses its last second.';
comment on column signaling.minute_stats.message_sent is
    'Messages that ended with this status; message_delivered and message_offline likewise.';
comment on column signaling.minute_stats.failed is
    'Messages that ended with this status; expired and unknown likewise. Cancelled messages are not counted.';
comment on column signaling.minute_stats.calls_transient is
    'Calls with this outcome, as in signaling.attempt; the other calls_ columns likewise.';
comment on column signaling.minute_stats.call_time is
    'Histogram of call durations. Buckets: up to 1, 2, 5, 10, 20, 50, 100, 200, 500 ms, 1, 2, 5, 10, 20 s, 1, 5, 30, 60 min, and longer.';
comment on column signaling.minute_stats.queue_wait is
    'Histogram of how long messages waited for their first call, from their insert or due time. Buckets: as in call_time.';
comment on column signaling.minute_stats.backlog is 'Queued and retrying messages at the last count of this minute.';

-- The pending messages of each app at the last count.
create table signaling.queue_counts (
    app       text   primary key,
    queued    bigint not null,
    scheduled bigint not null,
    retrying  bigint not null,
    sending   bigint not null,
    oldest_at timestamptz
)
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.queue_counts is
    'Pending messages by app and state at the last count: see queue_counts_turn. At most 100 apps that no worker has served.';
comment on column signaling.queue_counts.oldest_at is
    'Start of the longest wait of a message that is not scheduled: its due time, but not before its insert; the first failed attempt, if there was one.';

-- Time and duration of the last count. One row, because one session counts at a time.
create table signaling.queue_counts_turn (
    is_the_only_row boolean     primary key default true,
    counted_at      timestamptz not null default 'epoch',
    took            interval    not null default '0',

    constraint queue_counts_turn_has_one_row check (is_the_only_row)
)
with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on table signaling.queue_counts_turn is 'Time and duration of the last count. signaling.refresh_queue_counts() inserts the row if it is missing.';
