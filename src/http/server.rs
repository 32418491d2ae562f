//! The accept loop. axum's own has no limit on the time that a request's head may take.

use std::time::Duration;

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tower::ServiceExt as _;

/// A connection that takes longer to send the head of a request is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests at work are waited for when the service stops.
const FINISH: Duration = Duration::from_secs(20);
/// Pause after a failed accept, which usually means that no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is ready, then finishes the requests at work.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let connections = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => handle(stream, &router, &connections),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    if timeout(FINISH, connections.shutdown()).await.is_err() {
        tracing::warn!(seconds = FINISH.as_secs(), "requests were still at work and are cut off");
    }
}

fn handle(stream: TcpStream, router: &Router, connections: &GracefulShutdown) {
    let service = TowerToHyperService::new(
        router.clone().map_request(|request: Request<Incoming>| request.map(axum::body::Body::new)),
    );
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection broke off");
        }
    });
}
