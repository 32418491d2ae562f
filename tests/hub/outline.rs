//! What is known of a model on the hub before any of its weights is fetched.

use std::{fs, path::Path};

use graspd::{
    checkpoint::{Error, HubSettings, Snapshot, Weights, outline_model},
    job::{FailureCode, JobSpec, Plan},
    pipeline::{self, plan},
};
use serde_json::json;

use crate::{
    Client,
    fake::{COMMIT, FakeHub, Fault},
};

const MODEL: &str = "tests/fixtures/tiny-llama";

fn file(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(MODEL).join(name)).unwrap()
}

fn hub() -> FakeHub {
    FakeHub::start()
        .small("config.json", file("config.json"))
        .large("tokenizer.json", file("tokenizer.json"))
        .large("model.safetensors", file("model.safetensors"))
}

fn outline(settings: &HubSettings, folder: &Path) -> Result<Snapshot, Error> {
    outline_model("org/name", None, settings, folder, &mut |_, _, _| true)
}

/// A plan for the hub's model.
fn planned(client: &Client) -> Plan {
    let spec =
        JobSpec::parse(&json!({"model": "org/name", "grasp": {"preset": "paper", "layers": [2], "retain_ratio": 0.3}}));
    let settings = pipeline::Settings {
        models_dir: "/nonexistent".into(),
        published_dir: "/nonexistent".into(),
        datasets_dir: "/nonexistent".into(),
        hub: client.settings.clone(),
        device: "cpu".into(),
        memory_limit: 8 << 30,
    };
    plan(&spec.unwrap(), &settings)
}

#[test]
fn an_outline_has_all_tensors_and_fetches_none() {
    let hub = hub();
    let client = Client::of(&hub);
    let folder = tempfile::tempdir().unwrap();
    let found = outline(&client.settings, folder.path()).unwrap();
    assert_eq!(found.revision.as_deref(), Some(COMMIT));
    let real = Weights::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join(MODEL)).unwrap();
    let hollow = Weights::open(&found.folder).unwrap();
    assert!(real.iter().eq(hollow.iter()) && real.iter().count() > 50);
    assert_eq!(real.file_bytes().unwrap(), hollow.file_bytes().unwrap());
    let asked = hub.downloads();
    let heads = asked.iter().filter(|(file, _)| file == "model.safetensors");
    assert!(heads.map(|(_, range)| range.as_deref()).eq([Some("bytes=0-262143")]), "{asked:?}");
    assert!(client.shows_no_weights(), "an outline is no model");
}

#[test]
fn a_header_longer_than_usual_is_asked_for_once_more() {
    let name = "x".repeat(300_000);
    let header = json!({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).to_string();
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header.as_bytes());
    weights.extend([0; 4]);
    let hub = FakeHub::start().small("config.json", "{}").large("model.safetensors", weights);
    let folder = tempfile::tempdir().unwrap();
    let client = Client::of(&hub);
    let found = outline(&client.settings, folder.path()).unwrap();
    assert_eq!(Weights::open(&found.folder).unwrap().iter().count(), 1);
    assert_eq!(hub.downloads().iter().filter(|(file, _)| file == "model.safetensors").count(), 2);
}

#[test]
fn files_that_are_no_safetensors_are_refused_by_name() {
    for wrong in [&b"short"[..], &u64::MAX.to_le_bytes(), b""] {
        let hub = FakeHub::start().small("config.json", "{}").large("model.safetensors", wrong);
        let folder = tempfile::tempdir().unwrap();
        let client = Client::of(&hub);
        let error = outline(&client.settings, folder.path()).unwrap_err();
        assert_eq!(error.failure().code, FailureCode::InvalidModel, "{error}");
        assert!(error.to_string().starts_with("model.safetensors"), "{error}");
    }
}

#[test]
fn a_plan_knows_a_model_that_is_only_on_the_hub() {
    let hub = hub();
    let client = Client::of(&hub);
    let plan = planned(&client);
    assert_eq!(plan.refusals, []);
    assert_eq!(plan.architecture.as_deref(), Some("LlamaForCausalLM"));
    assert_eq!(plan.matrices[0].rank, Some(19));
    let bytes = plan.bytes.unwrap();
    assert!(bytes.after < bytes.before && bytes.before == file("model.safetensors").len() as u64);
    assert!(plan.notes.iter().any(|note| note.contains("fetches it first")), "{:?}", plan.notes);
    assert!(client.shows_no_weights());
}

#[test]
fn a_plan_says_what_the_hub_says() {
    let missing = hub().fault("/revision/", usize::MAX, Fault::Status(404, None));
    let refusals = planned(&Client::of(&missing)).refusals;
    assert_eq!(refusals[0].code, FailureCode::ModelNotFound);
    let pickled = FakeHub::start().small("config.json", "{}").large("pytorch_model.bin", "x");
    assert_eq!(planned(&Client::of(&pickled)).refusals[0].code, FailureCode::UnsupportedModel);
    // Trouble that may pass stands against nothing.
    let busy = hub().fault("/revision/", usize::MAX, Fault::Status(503, None));
    let plan = planned(&Client::of(&busy));
    assert_eq!((plan.refusals, plan.parameters), (Vec::new(), None));
    assert!(plan.notes[0].contains("503"), "{:?}", plan.notes);
}
