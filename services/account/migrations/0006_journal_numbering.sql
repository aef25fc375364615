-- The journal is followed by the ids of its transactions. Copied to another cluster by dump and
-- restore, its numbers are those of the old one: new ones go on behind them, shifted by so many.
CREATE TABLE journal_numbering (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    shift bigint NOT NULL CHECK (shift >= 0),
    shifted_at timestamptz NOT NULL
);

INSERT INTO journal_numbering (shift, shifted_at) VALUES (0, now());
