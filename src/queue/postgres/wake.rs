//! Waking those who wait in other processes. It saves them time and is no promise: everybody also looks by himself.
//!
//! A notification inside a transaction holds one lock of the whole server over its commit, and would let no two
//! processes commit at once. So it is sent afterwards, and one stands for all that was committed meanwhile.

use std::time::Duration;

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    connection::{PATIENCE, one},
    statements,
};

const CHANNEL: &str = "graspd";
/// Least time between two notifications of one process.
const PAUSE: Duration = Duration::from_millis(200);
/// After so long without a word the connection is made again.
const SILENCE: Duration = Duration::from_mins(1);
/// Before the next try to reach a server that is away.
const AWAY: Duration = Duration::from_secs(1);

/// Tells the other processes whenever `committed` has changed, for as long as it is polled.
pub(super) async fn tell(pool: PgPool, mut committed: watch::Receiver<()>) {
    while committed.changed().await.is_ok() {
        committed.borrow_and_update();
        if let Err(error) = one(&pool, sqlx::query(statements::NOTIFY)).await {
            tracing::debug!(%error, "the other processes were not told");
        }
        sleep(PAUSE).await;
    }
}

/// Wakes this process's waiters whenever any has told, for as long as it is polled.
pub(super) async fn listen(options: PgConnectOptions, commits: watch::Sender<u64>) {
    loop {
        if let Err(error) = hear(&options, &commits).await {
            tracing::debug!(%error, "the database cannot be listened to for now");
            sleep(AWAY).await;
        }
    }
}

/// Hears until there was nothing to hear for a while, as over a connection whose other end is gone.
async fn hear(options: &PgConnectOptions, commits: &watch::Sender<u64>) -> Result<(), sqlx::Error> {
    // A pool of its own: a listener waits for ever, and must not be missing in the store's.
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE).connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // Also at the beginning: what was told before, nobody heard.
        commits.send_modify(|count| *count += 1);
        match timeout(SILENCE, listener.recv()).await {
            Ok(heard) => drop(heard?),
            Err(_) => return Ok(()),
        }
    }
}
