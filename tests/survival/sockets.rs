//! Clients that hold on to their connections.

use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::site::Site;

/// Requests of others while all that goes on.
const OTHERS: usize = 200;

async fn connect(site: &Site, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(site.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Many clients in this one process need as many descriptors.
fn allow_many_sockets() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "figures for whoever runs it by hand")]
async fn clients_that_hold_on_are_dropped_and_the_others_answered() {
    allow_many_sockets();
    let mut site = Site::start().await;
    let running = site.submit("running").await;
    let id = site.submit("waiting").await;
    assert_eq!(site.send(Method::POST, &format!("/v1/jobs/{id}/pause"), None, None).await.unwrap().status(), 200);
    site.finish(&running).await;
    let mut held = JoinSet::new();
    let began = Instant::now();
    for number in 0..500 {
        let stream = connect(&site, "GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
        held.spawn(drip(stream, b"a", number));
    }
    for number in 0..50 {
        let head =
            "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        held.spawn(drip(connect(&site, head).await, b"1\r\n \r\n", number));
        let head = "POST /v1/datasets?name=slow HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n";
        held.spawn(drip(connect(&site, head).await, b"a", number));
    }
    for _ in 0..50 {
        let mut stream = connect(&site, "GET /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n").await;
        stream.shutdown().await.unwrap();
        held.spawn(async move {
            let mut reply = Vec::new();
            let _ = stream.read_to_end(&mut reply).await;
        });
    }
    let mut idle = Vec::new();
    for _ in 0..1000 {
        let head = "GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";
        idle.push(connect(&site, &head.replace("{id}", &id)).await);
    }
    let mut seconds = Vec::new();
    for _ in 0..OTHERS {
        let asked = Instant::now();
        let reply = site.send(Method::GET, &format!("/v1/jobs/{id}"), None, None).await;
        assert_eq!(reply.expect("an answer").status(), 200);
        seconds.push(asked.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let all = async { while held.join_next().await.is_some() {} };
    tokio::time::timeout(Duration::from_mins(2), all).await.expect("held connections are dropped");
    println!(
        "{OTHERS} requests of others: median {:.1} ms, slowest {:.1} ms; the last held connection dropped after {:.1} s",
        1e3 * seconds[OTHERS / 2],
        1e3 * seconds[OTHERS - 1],
        began.elapsed().as_secs_f64()
    );
    for stream in &mut idle {
        let mut byte = [0; 1];
        assert_eq!(stream.read(&mut byte).await.unwrap(), 1, "an idle stream of events is no abuse");
    }
    drop(idle);
    site.send(Method::POST, &format!("/v1/jobs/{id}/cancel"), None, None).await.unwrap();
    site.stop_and_sweep().await;
    site.verify();
}

/// Sends a little again and again, so that the connection is never silent, until the server has had enough.
async fn drip(mut stream: TcpStream, bytes: &'static [u8], number: u64) {
    let mut reply = [0; 1024];
    tokio::time::sleep(Duration::from_millis(number % 100)).await;
    loop {
        if stream.write_all(bytes).await.is_err() {
            return;
        }
        if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut reply)).await {
            return;
        }
    }
}
