-- Which of an account's jobs came later, whatever the clock said; 0: it came before this column, and the clock says it.
ALTER TABLE jobs ADD COLUMN number BIGINT NOT NULL DEFAULT 0;
CREATE INDEX jobs_by_number ON jobs (account, number);
