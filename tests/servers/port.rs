//! Ports for servers that are started by number.

use std::net::TcpListener;

use rand::RngExt;

/// A port that nobody listens on. It lies below those that the kernel gives to clients: one of these could be taken by any
/// connection between now and the server's start, even by one of whoever waits for the server, to itself.
pub(crate) fn free_port() -> u16 {
    let mut random = rand::rng();
    std::iter::repeat_with(|| random.random_range(20_000..32_000))
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .unwrap()
}
