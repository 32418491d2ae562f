//! The only file that wires everything.
