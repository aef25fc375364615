-- Rules, decisions, and outcomes of reservations on their way to the counters.

CREATE TABLE rule_versions (
    version bigint PRIMARY KEY CHECK (version > 0),
    digest text NOT NULL,
    rules jsonb NOT NULL,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE rule_versions IS 'All versions of the rules; the highest is in force';
CREATE TRIGGER rule_versions_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rule_versions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE decisions (
    action_id text COLLATE "C" PRIMARY KEY,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    actor text NOT NULL,
    biz_trace_id text NOT NULL,
    action text NOT NULL,
    product text NOT NULL,
    currency_code text NOT NULL,
    amount_minor bigint NOT NULL,
    user_id text NOT NULL,
    card_id text NOT NULL,
    ip_hash text NOT NULL,
    device_hash text NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('PASS', 'CHALLENGE', 'BLOCK')),
    rules text NOT NULL,
    rules_version bigint NOT NULL,
    degraded boolean NOT NULL,
    decided_at timestamptz NOT NULL
);
COMMENT ON TABLE decisions IS 'One verdict for each action, for ever';
COMMENT ON COLUMN decisions.ip_hash IS 'Keyed hash of the payer''s address; empty for none';
CREATE INDEX decisions_story ON decisions (biz_trace_id) WHERE biz_trace_id <> '';
CREATE TRIGGER decisions_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON decisions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Written with the event that tells of the end, so that no end is lost while Redis is away.
CREATE TABLE resolutions (
    action_id text COLLATE "C" NOT NULL,
    confirmed boolean NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    biz_trace_id text NOT NULL,
    cause text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (action_id, confirmed)
);
COMMENT ON TABLE resolutions IS 'What became of actions';

CREATE TABLE resolutions_waiting (
    action_id text COLLATE "C" NOT NULL,
    confirmed boolean NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (action_id, confirmed)
);
COMMENT ON TABLE resolutions_waiting IS 'Those that the counters were not told of yet';
