-- Which job is next: the tenant's turn, the job's priority, its age; and on which slots it has room.
ALTER TABLE jobs ADD COLUMN priority bigint NOT NULL DEFAULT 0;
-- Least bytes of memory of the slot that may run it; 0 for any.
ALTER TABLE jobs ADD COLUMN memory_needed bigint NOT NULL DEFAULT 0;

-- Serves the claim: the tenants that wait, and the first job of each.
DROP INDEX jobs_queued;
CREATE INDEX jobs_queued ON jobs (tenant, priority DESC, id, memory_needed) WHERE status = 'queued';
-- What runs is as many jobs as there are slots: they are counted, and lapsed leases found among them, in one reading. A beat
-- changes no column of an index. Entries of one tenant lie together, so that dead ones make room for the next.
DROP INDEX jobs_running;
CREATE INDEX jobs_running ON jobs (tenant) WHERE status = 'running';
-- When a tenant was last served.
CREATE INDEX jobs_by_start ON jobs (tenant, started_at) WHERE started_at IS NOT NULL;
