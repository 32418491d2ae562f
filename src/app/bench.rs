//! `graspd bench`: whole jobs in processes of their own, so that each has its own peak of memory, beside the rate at
//! which this machine multiplies matrices.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use candle_core::Tensor;

use super::AppError;
use crate::{
    cli::{
        self, SUCCEEDED,
        bench::{Arguments, Figures, Run, Setting, StageFigures, table},
    },
    config::{self, Machine},
    job::{Report, Stage, StageSeconds},
    model::{Config, open_device},
    pipeline,
};

/// Rows and columns of the matrices whose product is the measure.
const SIZE: usize = 2048;
/// Products of which the median counts.
const REPETITIONS: usize = 7;
/// The sample text is written so often that it has at least so many bytes for each token that is asked for.
const BYTES_PER_TOKEN: usize = 6;

/// Measures what `arguments` ask for and prints it.
pub(super) fn bench(machine: &Machine, device: &str, arguments: &Arguments) -> Result<u8, AppError> {
    let folder = tempfile::Builder::new().prefix("graspd-bench-").tempdir()?;
    let bench = Bench::prepare(machine, device, arguments, folder.path())?;
    let sgemm_gflops = sgemm_gflops(device)?;
    let runs = arguments.settings().iter().map(|setting| bench.run(setting)).collect::<Result<_, _>>()?;
    let figures = Figures { model: bench.model.clone(), sgemm_gflops, runs };
    cli::print(&match arguments.json {
        true => format!("{}\n", serde_json::to_string_pretty(&figures)?),
        false => table(&figures),
    })?;
    Ok(SUCCEEDED)
}

/// Rate of an f32 product on `device`, in 10⁹ operations a second.
fn sgemm_gflops(device: &str) -> Result<f64, AppError> {
    let measure = || -> candle_core::Result<f64> {
        let device = open_device(device).map_err(candle_core::Error::wrap)?;
        let [a, b] = [(); 2].map(|()| Tensor::rand(-1.0_f32, 1.0, (SIZE, SIZE), &device));
        let (a, b) = (a?, b?);
        let mut seconds = Vec::new();
        for _ in 0..=REPETITIONS {
            let start = Instant::now();
            // Reading a number waits for a device that works on its own.
            a.matmul(&b)?.get(0)?.get(0)?.to_scalar::<f32>()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        // The first warms up.
        let timed = &mut seconds[1..];
        timed.sort_by(f64::total_cmp);
        Ok(2.0 * (SIZE as f64).powi(3) / timed[REPETITIONS / 2] / 1e9)
    };
    measure().map_err(|error| AppError::System(io::Error::other(error)))
}

struct Bench<'a> {
    arguments: &'a Arguments,
    device: &'a str,
    memory_limit: u64,
    folder: &'a Path,
    models_dir: PathBuf,
    model: String,
}

impl<'a> Bench<'a> {
    /// Writes the sample model and texts that are long enough.
    fn prepare(machine: &Machine, device: &'a str, arguments: &'a Arguments, folder: &'a Path) -> io::Result<Self> {
        let samples = folder.join("models");
        cli::demo::write_samples(&samples, &folder.join("samples"))?;
        let largest = |list: &[usize]| list.iter().max().copied().unwrap_or(0);
        let windows = largest(&arguments.samples).max(arguments.evaluate) + 1;
        let wanted = windows * largest(&arguments.sequence_length) * BYTES_PER_TOKEN;
        let text = fs::read_to_string(folder.join("samples/calibration/train.txt"))?;
        let texts = folder.join("texts");
        fs::create_dir(&texts)?;
        fs::write(texts.join("bench.txt"), text.repeat(wanted.div_ceil(text.len().max(1))))?;
        let (models_dir, model) = match &arguments.model {
            Some(model) => (machine.models_dir.clone(), model.clone()),
            None => (samples, "file:tiny-llama".to_owned()),
        };
        Ok(Self { arguments, device, memory_limit: machine.memory_limit, folder, models_dir, model })
    }

    /// One job in a process of its own.
    fn run(&self, setting: &Setting) -> Result<Run, AppError> {
        let spec = self.folder.join("job.json");
        fs::write(&spec, self.arguments.job(&self.model, setting).to_string())?;
        let out = self.folder.join("out");
        let mut command = Command::new(config::program()?);
        command.args(["compress", "--json", "--device", self.device]);
        command.arg("--models-dir").arg(&self.models_dir).arg("--datasets-dir").arg(self.folder.join("texts"));
        command.arg("--spec").arg(&spec).arg("--out").arg(&out);
        command.args(["--memory-limit", &self.memory_limit.to_string()]);
        let output = command.stderr(std::process::Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(AppError::System(io::Error::other(format!("the job of {setting:?} failed"))));
        }
        let report: Report = serde_json::from_slice(&output.stdout)?;
        let (config, _) = Config::read(&out).map_err(io::Error::other)?;
        fs::remove_dir_all(&out)?;
        Ok(figures(setting, &config, &report))
    }
}

fn figures(setting: &Setting, config: &Config, report: &Report) -> Run {
    let costs = pipeline::cost(config, report);
    let stage = |stage: &StageSeconds| {
        let cost = costs.iter().find(|cost| cost.stage == stage.stage);
        StageFigures {
            stage: stage.stage.as_str().to_owned(),
            seconds: stage.seconds,
            gflop: cost.map(|cost| cost.flop / 1e9),
            tokens: cost.map(|cost| cost.tokens),
        }
    };
    let compression = report.stages.iter().filter(|stage| stage.stage != Stage::Evaluate);
    Run {
        setting: setting.clone(),
        stages: report.stages.iter().map(stage).collect(),
        seconds: compression.map(|stage| stage.seconds).sum(),
        peak_rss_bytes: report.peak_rss_bytes,
        residency: report.residency.clone(),
    }
}
