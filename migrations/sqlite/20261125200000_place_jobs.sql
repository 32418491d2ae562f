-- Which job is next: the tenant's turn, the job's priority, its age; and on which slots it has room.
ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
-- Least bytes of memory of the slot that may run it; 0 for any.
ALTER TABLE jobs ADD COLUMN memory_needed INTEGER NOT NULL DEFAULT 0;

-- Serves the claim: the tenants that wait, and the first job of each.
CREATE INDEX jobs_queued ON jobs (tenant, priority DESC, id) WHERE status = 'queued';
-- When a tenant was last served.
CREATE INDEX jobs_by_start ON jobs (tenant, started_at) WHERE started_at IS NOT NULL;
