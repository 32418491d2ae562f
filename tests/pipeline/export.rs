//! The folders that a job leaves behind, by format, type and shard.

use std::{collections::BTreeSet, fs, path::Path};

use graspd::{
    checkpoint::Weights,
    job::{
        Report,
        spec::{ExportFormat, ExportType},
    },
};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::support::{Job, fixtures};

fn job(model: &str, export: &Value) -> Job {
    Job::new(&json!({
        "model": model,
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": 2, "sequence_length": 64},
        "grasp": {"layers": [2, 5], "retain_ratio": 0.3},
        "evaluation": {"perplexity": ["file:evaluation"], "inference": false, "window": 128, "limit": 4},
        "export": export,
    }))
}

fn files(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn perplexity(report: &Report, side: fn(&graspd::job::PerplexityReport) -> f64) -> f64 {
    side(&report.evaluation.as_ref().unwrap().perplexity["file:evaluation"])
}

#[test]
fn two_formats_have_a_folder_each_and_only_one_needs_python() {
    let job = job("file:tiny-llama", &json!({"formats": ["dense", "factored"], "max_shard_size": "1MB"}));
    let report = job.run();
    let output = job.output();
    assert_eq!(
        files(&output),
        ["SHA256SUMS", "dense", "factored", "report.json", "singular_values.json"].map(str::to_owned).into()
    );
    let [factored, dense] = ["factored", "dense"].map(|format| files(&output.join(format)));
    let only_factored: Vec<&String> = factored.difference(&dense).filter(|name| !name.starts_with("model-")).collect();
    assert_eq!(only_factored, ["configuration_grasp.py", "modeling_grasp.py"]);
    for format in ["factored", "dense"] {
        let folder = output.join(format);
        assert!(folder.join("model.safetensors.index.json").exists() && folder.join("README.md").exists());
        let copied = fs::read(folder.join("tokenizer.json")).unwrap();
        assert!(copied == fs::read(fixtures().join("tiny-llama/tokenizer.json")).unwrap());
    }
    let config = read_json(&output.join("factored/config.json"));
    assert_eq!(
        (&config["model_type"], config["truncation_ranks"].as_object().unwrap().len()),
        (&json!("grasp_llama"), 14)
    );
    // But for the layout of the file, the dense configuration is that of the source.
    assert_eq!(read_json(&output.join("dense/config.json")), read_json(&fixtures().join("tiny-llama/config.json")));
    let [smaller, same] = report.checkpoints.as_slice() else { panic!("{:?}", report.checkpoints) };
    assert_eq!((smaller.format, same.format), (ExportFormat::Factored, ExportFormat::Dense));
    assert_eq!((report.parameters.after, report.bytes.after), (smaller.parameters, smaller.bytes));
    assert_eq!(same.parameters, report.parameters.before);
    let card = |format: &str| fs::read_to_string(output.join(format).join("README.md")).unwrap();
    assert!(card("factored").contains("trust_remote_code=True"));
    assert!(
        card("dense").contains("same size and speed as the source") && !card("dense").contains("trust_remote_code")
    );
}

#[test]
fn every_format_and_type_loads_again_and_scores_as_reported() {
    for (export, model) in [
        (json!({"formats": ["dense"]}), "file:output"),
        (json!({"formats": ["dense"], "dtype": "f16"}), "file:output"),
        (json!({"dtype": "f32"}), "file:output"),
        (json!({"formats": ["factored", "dense"], "dtype": "f16"}), "file:output/factored"),
    ] {
        let first = job("file:tiny-llama", &export);
        let report = first.run();
        let mut second = job(model, &json!({"formats": ["dense"]}));
        second.models_dir = first.folder.path().to_owned();
        let again = second.run();
        let (after, before) =
            (perplexity(&report, |score| score.after), perplexity(&again, |score| score.before.unwrap()));
        // The product of two factors is summed in another order than the factors' own products.
        assert!((before / after - 1.0).abs() < 1e-5, "{export}: {after} as written, {before} as read");
        assert!(read_json(&second.output().join("config.json"))["truncation_ranks"].is_null());
    }
}

#[test]
fn all_numbers_are_written_in_the_type_that_is_asked_for() {
    for (word, kind, dtype, name) in
        [("f32", ExportType::F32, Dtype::F32, "float32"), ("f16", ExportType::F16, Dtype::F16, "float16")]
    {
        let job = job("file:tiny-llama", &json!({"formats": ["factored", "dense"], "dtype": word}));
        let report = job.run();
        assert!(report.checkpoints.iter().all(|checkpoint| checkpoint.dtype == Some(kind)));
        for format in ["factored", "dense"] {
            let folder = job.output().join(format);
            assert_eq!(read_json(&folder.join("config.json"))["dtype"], name);
            assert!(Weights::open(&folder).unwrap().iter().all(|(_, entry)| entry.dtype == dtype));
        }
    }
}

#[test]
fn the_card_names_source_method_scores_and_licence() {
    let mut job = job("file:model", &json!({}));
    let models = job.folder.path().join("models");
    fs::create_dir_all(models.join("model")).unwrap();
    for name in files(&fixtures().join("tiny-llama")) {
        fs::copy(fixtures().join("tiny-llama").join(&name), models.join("model").join(&name)).unwrap();
    }
    let source = "---\nlicense: other\nlicense_name: tiny\nlicense_link: LICENSE\nbase_model: org/base\ntags: [x]\n---\n# Mine\n";
    fs::write(models.join("model/README.md"), source).unwrap();
    fs::write(models.join("model/LICENSE"), "as you like").unwrap();
    job.models_dir = models;
    let report = job.run();
    let card = fs::read_to_string(job.output().join("README.md")).unwrap();
    let perplexity = format!("{:.2}", perplexity(&report, |score| score.after));
    for words in [
        "---\nbase_model: org/base\nlicense: other\nlicense_name: tiny\nlicense_link: LICENSE\n",
        "the layers 2, 5",
        "`model`",
        "| parameters |",
        &perplexity,
        "trust_remote_code=True",
        "\"retain_ratio\": 0.3",
        "[tiny](LICENSE)",
    ] {
        assert!(card.contains(words), "{words:?} is not in\n{card}");
    }
    assert!(!card.contains("Mine") && !card.contains("metadata"), "{card}");
    assert_eq!(fs::read_to_string(job.output().join("LICENSE")).unwrap(), "as you like");
}
