-- The price of nodes, and what an account's day was priced at, beside what it took.
ALTER TABLE jobs ADD COLUMN nodes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN priced_ms DOUBLE PRECISION NOT NULL DEFAULT 0;
-- What an account's unfinished jobs may come to lie ready with is added up at every submission.
CREATE INDEX jobs_open_by_account ON jobs (account, price_result_bytes) WHERE state IN ('queued', 'running');
