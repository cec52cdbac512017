-- A list of one's jobs in one state passes over none of the others.
CREATE INDEX jobs_by_state ON jobs (account, state, submitted_ms, id);
