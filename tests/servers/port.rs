//! Ports for servers that are started by number.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

/// How many were asked for, so that nobody gets one that another test is about to use.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// A port that nobody listens on. It lies below those that the kernel gives to clients: one of these could be taken by any
/// connection between now and the server's start, even by one of whoever waits for the server, to itself.
pub(crate) fn free_port() -> u16 {
    let process = std::process::id().wrapping_mul(97);
    loop {
        let number = process.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + (number % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
