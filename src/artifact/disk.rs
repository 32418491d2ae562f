//! Folders on this machine.

/// Published folders on this machine.
pub struct DiskStore;
