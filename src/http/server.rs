//! The accept loop. hyper's own, because it can drop a connection that never sends a request.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::access::Peer;

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Until the head of a request has arrived, on a new connection and on one that is kept open.
    header: Duration,
    /// Until requests under way are finished once the server stops.
    drain: Duration,
    /// How long the other side may leave what it was sent unread or unacknowledged. Idle connections do not count.
    unread: Duration,
    /// Connections at once; more wait in the system's queue.
    connections: usize,
}

const LIMITS: Limits = Limits {
    header: Duration::from_secs(10),
    drain: Duration::from_secs(20),
    unread: Duration::from_mins(1),
    connections: 4096,
};
/// Pause after a refused accept: the process is out of file descriptors and some will be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown` completes; then takes no new connection, finishes the requests under
/// way, for at most 20 s, and returns.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    serve_within(LIMITS, listener, router, shutdown).await;
}

async fn serve_within(limits: Limits, listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header);
    let connections = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (place, accepted) = accept(&places, &listener) => match accepted {
                Ok((stream, address)) => {
                    tune(&stream, &limits);
                    spawn(&http, &connections, stream, router.clone().layer(Extension(Peer(address))), place);
                }
                Err(error) => pause_after(&error).await,
            },
        }
    }
    drop(listener);
    let open = connections.count();
    if tokio::time::timeout(limits.drain, connections.shutdown()).await.is_err() {
        tracing::warn!(http.connections = open, "requests were broken off at the end of the shutdown limit");
    }
}

/// Waits for a free place, then for a connection to take it.
async fn accept(
    places: &Arc<Semaphore>,
    listener: &TcpListener,
) -> (Option<OwnedSemaphorePermit>, io::Result<(TcpStream, SocketAddr)>) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    (place, listener.accept().await)
}

/// Asks the system for short delays, and to drop a peer that takes nothing.
fn tune(stream: &TcpStream, limits: &Limits) {
    let unread = u32::try_from(limits.unread.as_millis()).unwrap_or(u32::MAX);
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, unread) {
        tracing::debug!(error = %error, "a connection may stay unread for long");
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "a connection keeps its delay");
    }
}

fn spawn(
    http: &http1::Builder,
    connections: &GracefulShutdown,
    stream: TcpStream,
    router: Router,
    place: Option<OwnedSemaphorePermit>,
) {
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "a connection ended early");
        }
        drop(place);
    });
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(error = %error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::{Notify, oneshot},
    };

    use super::*;

    const QUICK: Limits = Limits { header: Duration::from_millis(50), ..LIMITS };

    #[tokio::test]
    async fn a_client_that_sends_no_request_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve_within(QUICK, listener, Router::new(), std::future::pending()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        let mut reply = Vec::new();
        // Ends only when the server closes.
        let _ = client.read_to_end(&mut reply).await;
        assert!(!reply.starts_with(b"HTTP/1.1 200"));
        server.abort();
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_its_connection_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let one = Limits { connections: 1, ..QUICK };
        let router = Router::new().route("/", get(async || "answered"));
        let server = tokio::spawn(serve_within(one, listener, router, std::future::pending()));
        // Takes the only place and says nothing; it is thrown out, and the next has its turn.
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.unwrap();
        assert!(reply.ends_with("answered"), "{reply}");
        server.abort();
    }

    #[tokio::test]
    async fn a_request_under_way_is_finished_after_shutdown() {
        let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (reached, go) = (reached.clone(), go.clone());
            async move || {
                reached.notify_one();
                go.notified().await;
                "finished"
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let server = tokio::spawn(serve(listener, Router::new().route("/", get(handler)), shutdown));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        reached.notified().await;
        stop.send(()).unwrap();
        go.notify_one();
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("finished"), "{reply}");
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
