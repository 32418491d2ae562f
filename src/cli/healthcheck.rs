//! `graspd healthcheck`: whether the server on this machine is ready, for a container's health check.

use std::{error::Error, time::Duration};

use tokio::time::timeout;

use crate::http::client::Client;

/// A health check that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the server that listens on `listen` (`host:port`).
///
/// # Errors
/// Why it is not ready, in words.
pub async fn healthcheck(listen: &str) -> Result<(), String> {
    let url = format!("http://{}", reachable(listen));
    let client = Client::new(&url).map_err(|error| error.to_string())?;
    match timeout(PATIENCE, client.ready()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{url}: {}", cause(&error))),
        Err(_) => Err(format!("{url}: no answer in {PATIENCE:?}")),
    }
}

/// What is at the bottom of an error: "connection refused" rather than "error sending request".
fn cause(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

/// A server that listens on every address is asked on the loopback one.
fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_is_not_there_is_not_ready() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let complaint = healthcheck(&address).await.unwrap_err();
        assert!(complaint.contains(&address) && complaint.contains("refused"), "{complaint}");
    }

    #[test]
    fn a_server_on_every_address_is_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80"), "[::1]:80");
        assert_eq!(reachable("graspd:80"), "graspd:80");
    }
}
