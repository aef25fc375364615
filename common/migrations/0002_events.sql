-- Events that wait to be told (outbox), and events that were heard (inbox).

CREATE SEQUENCE outbox_position;

CREATE TABLE outbox (
    recorded_at timestamptz NOT NULL DEFAULT now(),
    position bigint NOT NULL DEFAULT nextval('outbox_position'),
    event_id text NOT NULL,
    type text NOT NULL,
    aggregate_id text NOT NULL,
    aggregate_version bigint NOT NULL CHECK (aggregate_version > 0),
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    biz_trace_id text NOT NULL,
    body bytea NOT NULL,
    published_at timestamptz,
    PRIMARY KEY (recorded_at, position)
) PARTITION BY RANGE (recorded_at);
COMMENT ON TABLE outbox IS 'Events, written in the transaction of what they tell of';
COMMENT ON COLUMN outbox.body IS 'Serialised paymesh.event.v1.Event, without recorded_at';
-- The relay reads by this index and never by a remembered position: positions become visible in
-- the order of commits, so a late one may be smaller than one that was published already.
CREATE INDEX outbox_waiting ON outbox (position) WHERE published_at IS NULL;
CREATE INDEX outbox_story ON outbox (biz_trace_id) WHERE biz_trace_id <> '';

-- Takes what no day's partition takes, so that a missing partition never stops a payment.
CREATE TABLE outbox_other PARTITION OF outbox DEFAULT;

CREATE FUNCTION outbox_make_partitions(days_ahead int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    first_day date := (now() AT TIME ZONE 'UTC')::date;
    day date;
    made int := 0;
BEGIN
    FOR day IN SELECT first_day + i FROM generate_series(0, days_ahead) AS i LOOP
        IF to_regclass(format('outbox_%s', to_char(day, 'YYYYMMDD'))) IS NULL
            AND NOT EXISTS (
                SELECT FROM outbox_other
                WHERE recorded_at >= day::timestamp AT TIME ZONE 'UTC'
                AND recorded_at < (day + 1)::timestamp AT TIME ZONE 'UTC'
            )
        THEN
            EXECUTE format(
                'CREATE TABLE outbox_%s PARTITION OF outbox FOR VALUES FROM (%L) TO (%L)',
                to_char(day, 'YYYYMMDD'),
                day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
            );
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION outbox_make_partitions IS 'Make the partitions of today and the days ahead';

CREATE FUNCTION outbox_drop_partitions(keep_days int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    part record;
    waiting boolean;
    dropped int := 0;
BEGIN
    FOR part IN
        SELECT child.relname, to_date(substr(child.relname, 8), 'YYYYMMDD') AS day
        FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid
        WHERE inhparent = 'outbox'::regclass AND child.relname ~ '^outbox_\d{8}$'
    LOOP
        CONTINUE WHEN part.day >= (now() AT TIME ZONE 'UTC')::date - keep_days;
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE published_at IS NULL)', part.relname)
            INTO waiting;
        CONTINUE WHEN waiting;
        EXECUTE format('DROP TABLE %I', part.relname);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM outbox_other
    WHERE published_at IS NOT NULL AND recorded_at < now() - make_interval(days => keep_days);
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION outbox_drop_partitions IS 'Drop the days before keep_days that are all told';

SELECT outbox_make_partitions(3);

CREATE TABLE inbox (
    consumer text NOT NULL,
    event_id text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
COMMENT ON TABLE inbox IS 'Events that were taken, so that a second copy is dropped';

CREATE TABLE inbox_versions (
    consumer text NOT NULL,
    aggregate_id text NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (consumer, aggregate_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE inbox_versions IS 'How far an ordered consumer is with each aggregate';

CREATE TABLE inbox_parked (
    consumer text NOT NULL,
    event_id text NOT NULL,
    aggregate_id text NOT NULL,
    aggregate_version bigint NOT NULL,
    attempts int NOT NULL,
    due_at timestamptz NOT NULL,
    last_error text NOT NULL,
    event bytea NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, event_id)
);
COMMENT ON TABLE inbox_parked IS
    'Events that wait: for an earlier version (due when it has come), or for another attempt';
CREATE INDEX inbox_parked_due ON inbox_parked (consumer, due_at);
CREATE INDEX inbox_parked_aggregate ON inbox_parked (consumer, aggregate_id, aggregate_version);

CREATE TABLE inbox_dead (
    consumer text NOT NULL,
    event_id text NOT NULL,
    type text NOT NULL,
    aggregate_id text NOT NULL,
    aggregate_version bigint NOT NULL,
    biz_trace_id text NOT NULL,
    attempts int NOT NULL,
    last_error text NOT NULL,
    event bytea NOT NULL,
    died_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, event_id)
);
COMMENT ON TABLE inbox_dead IS 'Events that could not be handled: a person decides';
