//! `graspd healthcheck`: whether the server on this machine is ready, for a container's health check.

use std::time::Duration;

/// A health check that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the server that listens on `listen` (`host:port`).
///
/// # Errors
/// Why it is not ready, in words.
pub async fn healthcheck(listen: &str) -> Result<(), String> {
    let url = format!("http://{}/readyz", reachable(listen));
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().map_err(|error| error.to_string())?;
    let answer = client.get(&url).send().await.map_err(|error| format!("{url}: {}", cause(&error)))?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("{url}: {}", answer.status())) }
}

/// What is at the bottom of an error: "connection refused" rather than "error sending request".
fn cause(error: &dyn std::error::Error) -> String {
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
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn ask_one_that_answers(status: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = connection.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /readyz "));
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            connection.write_all(answer.as_bytes()).await.unwrap();
        });
        let result = healthcheck(&address).await;
        server.await.unwrap();
        result
    }

    #[tokio::test]
    async fn only_a_ready_server_is_healthy() {
        assert_eq!(ask_one_that_answers("200 OK").await, Ok(()));
        assert!(ask_one_that_answers("503 Service Unavailable").await.unwrap_err().contains("503"));
    }

    #[test]
    fn a_server_on_every_address_is_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80"), "[::1]:80");
        assert_eq!(reachable("graspd:80"), "graspd:80");
    }
}
