//! A real S3 server, moto's, on a loopback port, for as long as this process lives.

use std::{
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::port::free_port;

const PAUSE: Duration = Duration::from_millis(50);

/// Starts the server and ends it with the standard input, which comes with the end of the process that holds the other
/// end, however it dies.
const KEEP: &str = r#""$1" -H 127.0.0.1 -p "$2" >/dev/null 2>&1 & server=$!; cat; kill "$server""#;

/// A server with one bucket.
pub(crate) struct S3 {
    _keeper: Child,
    port: u16,
}

impl S3 {
    /// The bucket.
    pub(crate) const BUCKET: &str = "graspd";

    /// Starts a server where moto is installed; else says loudly what is not tested.
    pub(crate) async fn start() -> Option<Self> {
        let Some(program) = program() else {
            let skipped = "!!! SKIPPED: there is no moto_server here (pip install 'moto[server]'), so that nothing was \
                           tested on S3\n";
            // Not by a macro, whose output is only shown when the test fails.
            let _ = std::io::stderr().write_all(skipped.as_bytes());
            return None;
        };
        let port = free_port();
        let mut command = Command::new("sh");
        command.args(["-c", KEEP, "sh"]).arg(program).arg(port.to_string());
        let keeper = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let server = Self { _keeper: keeper, port };
        for _ in 0..600 {
            let bucket = format!("{}/{}", server.endpoint(), Self::BUCKET);
            if let Ok(made) = reqwest::Client::new().put(bucket).send().await {
                assert!(made.status().is_success(), "{made:?}");
                return Some(server);
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("moto_server does not start");
    }

    #[allow(dead_code, reason = "not every test binary puts something between")]
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a client of it is told, by the names of its environment variables.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", self.endpoint().as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }
}

/// In the search path.
#[expect(clippy::disallowed_methods, reason = "the test's own environment, not the program's")]
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("moto_server")).find(|program| program.exists())
}
