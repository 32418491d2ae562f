//! A real PostgreSQL server in a folder of its own, on a Unix socket, for as long as this process lives.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;

/// Where Debian keeps the servers, each under its major version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The server refuses to run as root.
const USER: &str = "postgres";
const PAUSE: Duration = Duration::from_millis(50);

/// Starts a server and waits for the end of its standard input, which comes with the end of the process that holds the
/// other end, however it dies; then nothing is left of either.
const KEEP: &str = r#"
"$1/initdb" -D "$2/data" -U graspd -A trust --no-sync --no-instructions >"$2/log" 2>&1 || exit 1
start() { "$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c fsync="$3" -c max_connections=300 >>"$2/log" 2>&1 & }
start "$@"
while read -r word; do
    case $word in
    kill) kill -KILL "$(head -1 "$2/data/postmaster.pid")"; wait ;;
    # Until the last of the old server's processes is gone, a new one does not start.
    start) for try in 1 2 3 4 5 6 7 8 9 10; do start "$@"; sleep 0.5; kill -0 $! 2>/dev/null && break; done ;;
    esac
done
kill -INT "$(head -1 "$2/data/postmaster.pid")"
wait
rm -rf "$2/data"
"#;

/// A server.
pub(crate) struct Postgres {
    keeper: Child,
    folder: TempDir,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts a server where one is installed; else says loudly what is not tested.
    pub(crate) fn start() -> Option<Self> {
        let Some(binaries) = binaries() else {
            let skipped = "!!! SKIPPED: there is no PostgreSQL server here (apt-get install postgresql), so that \
                           nothing was tested on one\n";
            // Not by a macro, whose output is only shown when the test fails.
            let _ = std::io::stderr().write_all(skipped.as_bytes());
            return None;
        };
        let folder = tempfile::Builder::new().prefix("graspd-postgres-").tempdir().unwrap();
        let mut command = if rustix::process::getuid().is_root() {
            let chown = Command::new("chown").arg(USER).arg(folder.path()).status().unwrap();
            assert!(chown.success());
            let mut command = Command::new("setpriv");
            command.args(["--reuid", USER, "--regid", USER, "--init-groups", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        command.args(["-c", KEEP, "sh"]).arg(binaries).arg(folder.path()).arg(fsync());
        let keeper = command.current_dir("/").stdin(Stdio::piped()).spawn().unwrap();
        Some(Self { keeper, folder, databases: AtomicU32::new(0) })
    }

    /// Kills the server with SIGKILL, without a chance to write anything more.
    #[allow(dead_code, reason = "not every test binary kills its server")]
    pub(crate) fn kill(&mut self) {
        self.say("kill");
    }

    /// Starts it again; it recovers by its log.
    #[allow(dead_code, reason = "not every test binary kills its server")]
    pub(crate) fn start_again(&mut self) {
        self.say("start");
    }

    #[allow(dead_code, reason = "not every test binary kills its server")]
    fn say(&mut self, word: &str) {
        writeln!(self.keeper.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    /// The address of a new, empty database.
    pub(crate) async fn database(&self) -> String {
        let name = format!("database_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = self.connect().await;
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        connection.close().await.unwrap();
        self.url(&name)
    }

    /// Where it listens.
    #[allow(dead_code, reason = "not every test binary puts something between")]
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://graspd@localhost/{database}?host={}", self.folder.path().display())
    }

    /// Waits until the server takes connections.
    async fn connect(&self) -> PgConnection {
        let url = self.url("postgres");
        for _ in 0..600 {
            match PgConnection::connect(&url).await {
                Ok(connection) => return connection,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        panic!("the server does not start:\n{}", fs::read_to_string(self.folder.path().join("log")).unwrap_or_default())
    }
}

/// Whether commits wait for the disk; only figures need that.
#[expect(clippy::disallowed_methods, reason = "the settings are those of the test, not of the program")]
fn fsync() -> String {
    std::env::var("GRASPD_TEST_FSYNC").unwrap_or_else(|_| "off".to_owned())
}

/// The newest server that is installed.
fn binaries() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let newest = versions.filter_map(|version| version.parse::<u32>().ok()).max()?;
    Some(Path::new(DEBIAN).join(newest.to_string()).join("bin")).filter(|folder| folder.join("postgres").exists())
}
