use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use reqwest::Method;

use super::app::TestApp;

/// Fragments of valid bodies, so that random ones get past the first check.
const PIECES: [&str; 24] = [
    "{", "}", "[", "]", ":", ",", "\"model\"", "\"file:x\"", "\"grasp\"", "\"layers\"", "\"retain_ratio\"", "\"calibration\"", "\"evaluation\"",
    "\"metadata\"", "null", "true", "-1", "1e400", "0.5", "[1,2]", "{\"model\":\"a/b\"}", "\"\\u0000\"", "\"perplexity\"", "18446744073709551616",
];

#[tokio::test]
async fn no_body_makes_the_service_fail() {
    let app = TestApp::start().await;
    let mut rng = StdRng::seed_from_u64(7);
    for _ in 0..1000 {
        let length = rng.random_range(0..12);
        let mut body: Vec<u8> = (0..length).flat_map(|_| PIECES.choose(&mut rng).unwrap().bytes()).collect();
        if rng.random_bool(0.2) {
            body.push(rng.random());
        }
        let request = app.request(Method::POST, "/v1/jobs").header("content-type", "application/json").body(body.clone());
        let status = request.send().await.unwrap().status();
        assert!(status.is_success() || status.is_client_error(), "{status} for {:?}", String::from_utf8_lossy(&body));
    }
}

#[tokio::test]
async fn no_path_makes_the_service_fail() {
    let app = TestApp::start().await;
    let mut rng = StdRng::seed_from_u64(8);
    let pieces = ["v1", "jobs", "artifacts", "report", "cancel", "%2e", "..", "%00", "%ff", "?status=", "?limit=-1", "01890a5d-ac96-774b-bcce-b302099a8057", "&after=", "x"];
    for _ in 0..1000 {
        let count = rng.random_range(1..6);
        let path: String = (0..count).map(|_| format!("/{}", pieces.choose(&mut rng).unwrap())).collect();
        let method = [Method::GET, Method::POST, Method::HEAD, Method::PUT].choose(&mut rng).unwrap().clone();
        let status = app.request(method, &path).send().await.unwrap().status();
        assert!(!status.is_server_error(), "{status} for {path}");
    }
}
