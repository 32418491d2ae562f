//! Running jobs: slots, child processes, leases.
