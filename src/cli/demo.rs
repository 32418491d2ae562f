//! The sample of `graspd demo`: a small trained model, two texts and a job, all inside this executable.

use std::{fs, io, path::Path};

use serde_json::{Value, json};

/// A file and where it goes.
struct Sample {
    path: &'static str,
    content: &'static [u8],
}

macro_rules! samples {
    ($($path:literal from $fixture:literal),+ $(,)?) => {
        &[$(Sample {
            path: $path,
            content: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/", $fixture)),
        }),+]
    };
}

const MODEL: &[Sample] = samples![
    "tiny-llama/config.json" from "tiny-llama/config.json",
    "tiny-llama/generation_config.json" from "tiny-llama/generation_config.json",
    "tiny-llama/model.safetensors" from "tiny-llama/model.safetensors",
    "tiny-llama/special_tokens_map.json" from "tiny-llama/special_tokens_map.json",
    "tiny-llama/tokenizer.json" from "tiny-llama/tokenizer.json",
    "tiny-llama/tokenizer_config.json" from "tiny-llama/tokenizer_config.json",
];

const TEXTS: &[Sample] = samples![
    "calibration/train.txt" from "text/calibration.txt",
    "evaluation/test.txt" from "text/evaluation.txt",
];

/// Writes the sample model below `models` and the sample texts below `datasets`.
///
/// # Errors
/// What the file system says.
pub fn write_samples(models: &Path, datasets: &Path) -> io::Result<()> {
    write_all(models, MODEL)?;
    write_all(datasets, TEXTS)
}

fn write_all(folder: &Path, samples: &[Sample]) -> io::Result<()> {
    for sample in samples {
        let path = folder.join(sample.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, sample.content)?;
    }
    Ok(())
}

/// The job that the demo submits.
pub fn job() -> Value {
    json!({
        "model": "file:tiny-llama",
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": 16, "sequence_length": 128},
        "grasp": {"preset": "best", "target_compression": 0.2},
        "evaluation": {"perplexity": ["file:evaluation"], "window": 256},
    })
}

/// What the demo says at its end: where things are, and how to do the same by hand.
pub fn farewell(checkpoint: &Path, data: &Path) -> String {
    let data = data.display();
    format!(
        "checkpoint {}\n\nEverything of this demo is kept in {data}\n\nThe same service, to try by hand:\n  \
         graspd serve --data-dir {data}\n  \
         curl -sS localhost:8080/v1/jobs -H 'content-type: application/json' -d '{}'\n",
        checkpoint.display(),
        job()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobSpec;

    #[test]
    fn the_sample_job_names_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (models, datasets) = (folder.path().join("models"), folder.path().join("datasets"));
        write_samples(&models, &datasets).unwrap();
        assert!(models.join("tiny-llama/model.safetensors").exists());
        let spec = JobSpec::parse(&job()).unwrap();
        let split = datasets.join("calibration").join(format!("{}.txt", spec.calibration.parts[0].split));
        assert!(split.exists(), "{}", split.display());
    }
}
