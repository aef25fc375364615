-- What was refused at the door. No path, query or body: those may hold personal data.

CREATE TABLE refusals (
    refused_at timestamptz NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    route text NOT NULL,
    reason text NOT NULL,
    merchant_id text NOT NULL,
    tenant_id text NOT NULL,
    PRIMARY KEY (refused_at, request_id)
);
COMMENT ON TABLE refusals IS 'Requests that were refused before they reached a service';
CREATE INDEX refusals_request ON refusals (request_id);
CREATE TRIGGER refusals_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON refusals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
