-- What changing requests and callbacks came to. No query, body or address of the caller: those may
-- hold personal data; what a request meant is in the row of the noun that it made or changed.

CREATE TABLE requests (
    began_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    http_status int NOT NULL,
    replayed boolean NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('request', 'callback')),
    route text NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    key_id text NOT NULL,
    channel text NOT NULL,
    idempotency_key_hash bytea NOT NULL,
    noun_id text COLLATE "C" NOT NULL,
    biz_trace_id text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (request_id, began_at)
) PARTITION BY RANGE (began_at);
COMMENT ON TABLE requests IS 'Changing requests and callbacks that were let in; written behind';
COMMENT ON COLUMN requests.idempotency_key_hash IS 'SHA-256 of the Idempotency-Key; merchants choose it';
COMMENT ON COLUMN requests.noun_id IS 'What was made, or what the request was about';
CREATE INDEX requests_story ON requests (biz_trace_id) WHERE biz_trace_id <> '';
CREATE INDEX requests_key ON requests (idempotency_key_hash) WHERE idempotency_key_hash <> '';
-- Refused ones know no story: they are found by what they were about.
CREATE INDEX requests_noun ON requests (noun_id) WHERE biz_trace_id = '' AND noun_id <> '';

-- Takes what no day's partition takes, so that a missing partition stops nothing.
CREATE TABLE requests_other PARTITION OF requests DEFAULT;

CREATE FUNCTION requests_make_partitions(days_ahead int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    first_day date := (now() AT TIME ZONE 'UTC')::date;
    day date;
    made int := 0;
BEGIN
    FOR day IN SELECT first_day + i FROM generate_series(0, days_ahead) AS i LOOP
        IF to_regclass(format('requests_%s', to_char(day, 'YYYYMMDD'))) IS NULL
            AND NOT EXISTS (
                SELECT FROM requests_other
                WHERE began_at >= day::timestamp AT TIME ZONE 'UTC'
                AND began_at < (day + 1)::timestamp AT TIME ZONE 'UTC'
            )
        THEN
            EXECUTE format(
                'CREATE TABLE requests_%s PARTITION OF requests FOR VALUES FROM (%L) TO (%L)',
                to_char(day, 'YYYYMMDD'),
                day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
            );
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION requests_make_partitions IS 'Make the partitions of today and the days ahead';

CREATE FUNCTION requests_drop_partitions(keep_days int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    part record;
    dropped int := 0;
BEGIN
    FOR part IN
        SELECT child.relname, to_date(substr(child.relname, 10), 'YYYYMMDD') AS day
        FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid
        WHERE inhparent = 'requests'::regclass AND child.relname ~ '^requests_\d{8}$'
    LOOP
        CONTINUE WHEN part.day >= (now() AT TIME ZONE 'UTC')::date - keep_days;
        EXECUTE format('DROP TABLE %I', part.relname);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM requests_other WHERE began_at < now() - make_interval(days => keep_days);
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION requests_drop_partitions IS 'Drop the days before keep_days';

SELECT requests_make_partitions(3);
