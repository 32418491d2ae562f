//! What lies between a machine and a server of the site, and fails as networks and servers fail.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
};

/// How the line behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// As it should.
    None,
    /// Everything arrives late by so much.
    Delay(Duration),
    /// Half of what is under way arrives, then the connection ends.
    Drop,
    /// Nothing arrives, and nobody is told.
    BlackHole,
    /// Every connection is reset.
    Reset,
    /// What is asked arrives and is done; the reply never comes: the connection ends where it should.
    CutAfterCommit,
    /// Every request is answered 503, by something before the server.
    Unavailable,
}

impl Fault {
    /// What a line to a database does.
    pub(crate) const OF_A_DATABASE: [Self; 5] =
        [Self::Delay(Duration::from_millis(200)), Self::Drop, Self::BlackHole, Self::Reset, Self::CutAfterCommit];
    /// What a line to an object store does.
    pub(crate) const OF_A_STORE: [Self; 6] = [
        Self::Delay(Duration::from_millis(200)),
        Self::Drop,
        Self::BlackHole,
        Self::Reset,
        Self::CutAfterCommit,
        Self::Unavailable,
    ];
}

/// The server behind a line.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Port(u16),
    Socket(PathBuf),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Target {
    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Port(port) => Box::new(TcpStream::connect(("127.0.0.1", *port)).await?),
            Self::Socket(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Slow Down\r\ncontent-type: text/plain\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A line.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    fault: watch::Sender<Fault>,
    _lines: JoinSet<()>,
}

impl Proxy {
    /// On a free port of `host`.
    pub(crate) async fn to(target: Target, host: &str) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fault, seen) = watch::channel(Fault::None);
        let mut lines = JoinSet::new();
        lines.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(serve(client, target.clone(), seen.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, fault, _lines: lines }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn serve(mut client: TcpStream, target: Target, mut fault: watch::Receiver<Fault>) {
    // An error ends the connection, which is all that either side learns of one.
    if let Err(error) = pass(&mut client, &target, &mut fault).await
        && error.kind() == std::io::ErrorKind::ConnectionReset
    {
        let _ = client.set_zero_linger();
    }
}

/// Passes bytes on until an end comes; a reset is an error of that kind.
async fn pass(client: &mut TcpStream, target: &Target, fault: &mut watch::Receiver<Fault>) -> std::io::Result<()> {
    let mut server: Option<Box<dyn Stream>> = None;
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let now = *fault.borrow_and_update();
        match now {
            Fault::Reset => return Err(std::io::ErrorKind::ConnectionReset.into()),
            Fault::BlackHole => {
                if fault.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            // Whoever waits for a reply of the server behind is cut off.
            Fault::Unavailable if server.is_some() => return Ok(()),
            Fault::Unavailable => {
                let _ = client.read(&mut up).await?;
                return client.write_all(UNAVAILABLE).await;
            }
            Fault::None | Fault::Delay(_) | Fault::Drop | Fault::CutAfterCommit => {}
        }
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(target.connect().await?),
        };
        tokio::select! {
            changed = fault.changed() => if changed.is_err() { return Ok(()) },
            read = client.read(&mut up) => match read? {
                0 => return Ok(()),
                count => deliver(&up[..count], server, now).await?,
            },
            read = server.read(&mut down) => match read? {
                0 => return Ok(()),
                _ if now == Fault::CutAfterCommit => return Ok(()),
                count => deliver(&down[..count], client, now).await?,
            },
        }
    }
}

async fn deliver(bytes: &[u8], to: &mut (impl AsyncWrite + Unpin), fault: Fault) -> std::io::Result<()> {
    match fault {
        Fault::Delay(delay) => tokio::time::sleep(delay).await,
        Fault::Drop => {
            to.write_all(&bytes[..bytes.len() / 2]).await?;
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        _ => {}
    }
    to.write_all(bytes).await
}
