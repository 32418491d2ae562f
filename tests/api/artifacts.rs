use reqwest::{Method, Response, header};
use serde_json::{Value, json};

use super::app::{TestApp, problem};

async fn download(app: &TestApp, path: &str, headers: &[(header::HeaderName, &str)]) -> Response {
    let request = headers.iter().fold(app.request(Method::GET, path), |request, (name, value)| request.header(name, *value));
    request.send().await.unwrap()
}

#[tokio::test]
async fn files_are_listed_with_length_checksum_and_address() {
    let app = TestApp::start().await;
    let id = app.succeeded().await;
    let list: Value = app.get(&format!("/v1/jobs/{id}/artifacts")).await.json().await.unwrap();
    let names: Vec<&str> = list["data"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["SHA256SUMS", "deep/file name.txt", "model.safetensors", "report.json"]);
    let model = &list["data"][2];
    assert_eq!(model["bytes"], 10);
    assert_eq!(model["sha256"], "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882");
    for file in list["data"].as_array().unwrap() {
        let response = app.get(file["url"].as_str().unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(json!(response.bytes().await.unwrap().len()), file["bytes"]);
    }
}

#[tokio::test]
async fn a_file_comes_whole_or_in_part() {
    let app = TestApp::start().await;
    let path = format!("/v1/jobs/{}/artifacts/model.safetensors", app.succeeded().await);
    let whole = app.get(&path).await;
    assert_eq!(whole.headers()["content-disposition"], "attachment; filename=\"model.safetensors\"");
    assert_eq!(whole.headers()["x-content-type-options"], "nosniff");
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    let tag = whole.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(whole.text().await.unwrap(), "0123456789");

    let part = download(&app, &path, &[(header::RANGE, "bytes=2-4")]).await;
    assert_eq!((part.status().as_u16(), part.headers()["content-range"].to_str().unwrap()), (206, "bytes 2-4/10"));
    assert_eq!(part.text().await.unwrap(), "234");
    assert_eq!(download(&app, &path, &[(header::RANGE, "bytes=7-"), (header::IF_RANGE, &tag)]).await.text().await.unwrap(), "789");
    assert_eq!(download(&app, &path, &[(header::RANGE, "bytes=7-"), (header::IF_RANGE, "\"old\"")]).await.text().await.unwrap(), "0123456789");
    assert_eq!(problem(download(&app, &path, &[(header::RANGE, "bytes=10-")]).await).await.1, "range_not_satisfiable");
    assert_eq!(download(&app, &path, &[(header::IF_NONE_MATCH, &tag)]).await.status(), 304);

    let head = app.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "10"));
    assert!(head.bytes().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_slash_in_a_name_may_be_encoded() {
    let app = TestApp::start().await;
    let id = app.succeeded().await;
    for name in ["deep/file%20name.txt", "deep%2Ffile%20name.txt", "deep%2ffile name.txt"] {
        assert_eq!(app.get(&format!("/v1/jobs/{id}/artifacts/{name}")).await.text().await.unwrap(), "deep", "{name}");
    }
}

#[tokio::test]
async fn only_listed_names_are_served() {
    let app = TestApp::start().await;
    let id = app.succeeded().await;
    std::fs::write(app.data_dir().join("secret"), "secret").unwrap();
    for name in ["nothing", "deep", "..%2F..%2Fsecret", "%2e%2e/%2e%2e/secret", "..%252f..%252fsecret", "%2Fetc%2Fpasswd", "deep/..%2Fmodel.safetensors", "%ff", "%00"] {
        let response = app.get(&format!("/v1/jobs/{id}/artifacts/{name}")).await;
        assert_eq!(problem(response).await.0, 404, "{name}");
    }
}

#[tokio::test]
async fn a_job_without_files_says_why() {
    let app = TestApp::start().await;
    for id in [app.failed().await, app.submit().await] {
        let list: Value = app.get(&format!("/v1/jobs/{id}/artifacts")).await.json().await.unwrap();
        assert_eq!(list, json!({"object": "list", "data": [], "has_more": false}));
        for path in ["report", "artifacts/model.safetensors"] {
            assert_eq!(problem(app.get(&format!("/v1/jobs/{id}/{path}")).await).await, (409, "job_not_finished".into(), None));
        }
    }
}

#[tokio::test]
async fn the_report_is_the_published_file() {
    let app = TestApp::start().await;
    let id = app.succeeded().await;
    let response = app.get(&format!("/v1/jobs/{id}/report")).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.json::<Value>().await.unwrap(), json!({"version": "test"}));
}
