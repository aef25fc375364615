-- News about a job's subject that came while it ran, or just before it was to be cancelled.

ALTER TABLE jobs ADD COLUMN is_hastened boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN jobs.is_hastened IS
    'There is news that no run has seen yet: the job is neither ended nor cancelled before one has';
