//! Every example of the description, sent: the bodies, and each parameter of the query and the headers.

use graspd::{http::openapi, queue::Outcome};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::{LEASE, TestApp};

/// The example of a body: its own, or that of the schema it refers to.
fn example<'a>(description: &'a Value, content: &'a Value) -> Option<&'a Value> {
    let schema = content["schema"]["$ref"].as_str().and_then(|path| description.pointer(path.trim_start_matches('#')));
    content.get("example").or_else(|| schema?.get("example"))
}

/// A parameter with its example.
type Parameter<'a> = (&'a Value, &'a Value);

/// The parameters of an operation but for those of its path, which a test must fill in itself.
fn parameters(operation: &Value) -> Vec<Parameter<'_>> {
    let all = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    let own = all.iter().filter(|parameter| parameter["in"] != "path");
    own.map(|parameter| (parameter, parameter.get("example").unwrap_or_else(|| panic!("no example: {parameter}"))))
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn with(request: RequestBuilder, (parameter, example): Parameter<'_>) -> RequestBuilder {
    let name = parameter["name"].as_str().unwrap();
    match (parameter["in"].as_str().unwrap(), example) {
        ("header", value) => request.header(name, text(value)),
        // The only style of query that is not a plain pair: name[key]=value.
        ("query", Value::Object(fields)) => fields
            .iter()
            .fold(request, |request, (key, value)| request.query(&[(format!("{name}[{key}]"), text(value))])),
        ("query", value) => request.query(&[(name, text(value))]),
        (place, _) => panic!("a parameter in {place}"),
    }
}

fn filled(path: &str, job: &str, dataset: &str) -> String {
    let id = if path.starts_with("/v1/datasets") { dataset } else { job };
    path.replace("{id}", id).replace("{name}", "report.json")
}

/// Ends every job that comes, so that one who prefers to wait is answered.
fn end_jobs(app: &TestApp) {
    let store = app.store.clone();
    tokio::spawn(async move {
        loop {
            match store.claim("test", LEASE).await.unwrap() {
                Some(claim) => drop(store.settle(&claim, &Outcome::Succeeded).await.unwrap()),
                None => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        }
    });
}

/// One operation of a server of its own.
struct Operation<'a> {
    app: TestApp,
    description: &'a Value,
    described: &'a Value,
    method: Method,
    path: String,
}

impl<'a> Operation<'a> {
    async fn new(description: &'a Value, path: &str, method: &str, operation: &'a Value) -> Self {
        let app = TestApp::new().await;
        let job = app.succeeded(&[("report.json", "{}")]).await;
        let upload = app.request(Method::POST, "/v1/datasets").header("content-type", "text/plain").body("text");
        let dataset: Value = upload.send().await.unwrap().json().await.unwrap();
        let path = filled(path, &job, dataset["id"].as_str().unwrap());
        end_jobs(&app);
        Self { app, description, described: operation, method: method.to_uppercase().parse().unwrap(), path }
    }

    /// A request for each body, or one without.
    fn bare(&self) -> Vec<RequestBuilder> {
        let Self { app, method, path, .. } = self;
        let Some(bodies) = self.described["requestBody"]["content"].as_object() else {
            return vec![app.request(method.clone(), path)];
        };
        let with_body = |(kind, content): (&String, &Value)| {
            let body = example(self.description, content).unwrap_or_else(|| panic!("{method} {path}: no example"));
            app.request(method.clone(), path).header("content-type", kind).body(text(body))
        };
        bodies.iter().map(with_body).collect()
    }

    /// Sends the request without parameters, with each of them, and with all.
    async fn ask(&self) -> usize {
        let parameters = parameters(self.described);
        let mut requests = self.bare();
        for parameter in &parameters {
            requests.extend(self.bare().into_iter().map(|request| with(request, *parameter)));
        }
        requests.extend(self.bare().into_iter().map(|request| parameters.iter().copied().fold(request, with)));
        // What is deleted is there only once.
        requests.truncate(if self.method == Method::DELETE { 1 } else { usize::MAX });
        let asked = requests.len();
        for request in requests {
            self.check(request).await;
        }
        asked
    }

    async fn check(&self, request: RequestBuilder) {
        let Self { method, path, .. } = self;
        let request = request.build().unwrap();
        let sent = format!("{request:?}");
        let status = self.app.http.execute(request).await.unwrap().status();
        let documented = self.described["responses"].get(status.as_str()).is_some();
        assert!(documented && status.as_u16() < 500, "{method} {path}: {status} to {sent}");
        // A job that has ended cannot be cancelled or paused, and nobody publishes it without a token, or twice.
        let refused = status.as_u16() == 409 || path.ends_with("/publish");
        assert!(status.is_success() || refused, "{method} {path}: {status} to {sent}");
    }
}

#[tokio::test]
async fn every_operation_answers_its_own_examples_as_it_says() {
    let description = serde_json::to_value(openapi()).unwrap();
    let mut asked = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            asked += Operation::new(&description, path, method, operation).await.ask().await;
        }
    }
    assert!(asked > 60, "{asked}");
}
