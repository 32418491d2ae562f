//! How much memory a job needs, counted before anything is allocated, and where its layers are for it: all in memory
//! if they fit the limit, else in their files.

use super::{Error, exams::BATCHES_AT_ONCE, gradients, statistics::Needs};
use crate::{
    eval::READ_AT_ONCE,
    job::{
        Failure, FailureCode,
        spec::{Projection, Recovery, RecoveryMethod, RecoveryTarget},
    },
    model::{Batch, Config, LOGITS, Residency},
};

/// Bytes of a number in memory.
const F32: u64 = size_of::<f32>() as u64;
const F64: u64 = size_of::<f64>() as u64;
/// The program, its tables and the tokenizer, in bytes.
const PROGRAM: u64 = 128 << 20;
const GIBIBYTE: f64 = (1_u64 << 30) as f64;

/// What a job asks of the memory.
pub(super) struct Demand<'a> {
    pub(super) config: &'a Config,
    /// Numbers of the whole model.
    pub(super) parameters: u64,
    /// Layers that are compressed; none where they are deleted or where nothing needs a gradient.
    pub(super) layers: usize,
    /// Which matrices of them.
    pub(super) projections: &'a [Projection],
    /// What the passes add up for them.
    pub(super) needs: Needs,
    /// Share of the matrices' numbers that stays.
    pub(super) kept: f64,
    /// Tokens of a calibration window.
    pub(super) calibration: usize,
    /// Tokens of the longest evaluation window.
    pub(super) evaluation: usize,
    /// Tokens of the longest prompt with its answer, where the model writes answers.
    pub(super) written: Option<usize>,
    /// The training that follows, if any.
    pub(super) recovery: Option<&'a Recovery>,
}

/// The layers' place, and what is left for decompositions at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) residency: Residency,
    /// Bytes that the decompositions of a layer may use.
    pub(super) decompositions: u64,
}

impl Demand<'_> {
    /// Resident if that fits `limit` bytes, streamed if that does.
    ///
    /// # Errors
    /// `out_of_memory`, with what is needed and what to change.
    pub(super) fn plan(&self, limit: u64) -> Result<Plan, Error> {
        // Training changes the layers, and every token that is written takes all of them: they must be in memory.
        let resident = match (self.recovery, self.written) {
            (Some(_), _) => Some("recovery asks for"),
            (None, Some(_)) => Some("tasks whose answers the model writes ask for"),
            (None, None) => None,
        };
        let streamed = resident.is_none().then_some(Residency::Streamed);
        for residency in [Some(Residency::Resident), streamed].into_iter().flatten() {
            if self.bytes(residency) <= limit {
                let decompositions = limit - self.base(residency) - self.in_hand(residency);
                return Ok(Plan { residency, decompositions });
            }
        }
        let (least, place) = match resident {
            Some(reason) => (Residency::Resident, format!("with its layers in memory, which {reason}")),
            None => (Residency::Streamed, "even with its layers read one by one".to_owned()),
        };
        let failure = Failure::give_up(
            FailureCode::OutOfMemory,
            format!(
                "the job needs {:.1} GiB {place}, and may use {:.1} GiB: raise \
                 GRASPD_MEMORY_LIMIT, or shorten calibration.sequence_length ({}) or evaluation.window ({})",
                self.bytes(least) as f64 / GIBIBYTE,
                limit as f64 / GIBIBYTE,
                self.calibration,
                self.evaluation,
            ),
        );
        Err(Error::Failed(failure.needing(self.bytes(least))))
    }

    /// Bytes at the highest point.
    pub(super) fn bytes(&self, residency: Residency) -> u64 {
        self.base(residency)
            + self
                .passes(residency)
                .max(self.in_hand(residency) + self.decomposition())
                .max(self.training())
                .max(self.writing())
    }

    /// What is there all the time: the program, the model or its ends, the factors made so far.
    fn base(&self, residency: Residency) -> u64 {
        let factors = (self.kept * (self.layers as u64 * self.chosen()) as f64) as u64;
        let weights = match residency {
            Residency::Resident => self.parameters,
            Residency::Streamed => self.ends(),
        };
        // A tensor is read as bytes before it becomes numbers: half as much again, for the largest.
        PROGRAM + F32 * (weights + factors) + F32 / 2 * self.largest()
    }

    /// The forward and backward passes.
    fn passes(&self, residency: Residency) -> u64 {
        let Config { hidden_size, num_layers, .. } = *self.config;
        let batch = |length| Batch { windows: 1, length };
        let tokens = gradients::tokens_at_once(self.calibration);
        let states = F32 * (tokens * hidden_size) as u64;
        let one_layer = gradients::activation_bytes(self.config, batch(tokens)) as u64;
        let (layer, sums, kept) = match residency {
            Residency::Resident => {
                let all = one_layer * num_layers as u64;
                let kept =
                    if all <= gradients::ACTIVATIONS as u64 { all } else { one_layer + states * num_layers as u64 };
                (0, self.layers as u64, kept)
            }
            Residency::Streamed => (self.layer(), self.layers.min(1) as u64, one_layer),
        };
        let training = kept + F32 * sums * self.sums() + F32 * self.largest_sum();
        let scoring = 2 * gradients::activation_bytes(self.config, batch(self.evaluation)) as u64;
        let logits = LOGITS.min(tokens.max(self.evaluation) * self.config.vocab_size) as u64;
        F32 * layer + training.max(scoring) + 2 * F32 * logits + 4 * states
    }

    /// Answers: keys and values of what is read and written, and what goes through a layer at once.
    fn writing(&self) -> u64 {
        let Some(longest) = self.written else { return 0 };
        let Config { num_layers, num_kv_heads, head_dim, .. } = *self.config;
        let kept = 2 * F32 * (num_layers * num_kv_heads * head_dim * longest) as u64;
        let read = Batch { windows: 1, length: longest.min(READ_AT_ONCE) };
        BATCHES_AT_ONCE as u64 * (kept + gradients::activation_bytes(self.config, read) as u64)
    }

    /// The recovery: gradients, both moments and the best values of what trains, and a micro-batch's activations.
    fn training(&self) -> u64 {
        let Some(recovery) = self.recovery else { return 0 };
        let layers = match recovery.target {
            RecoveryTarget::RedundantLayers => self.layers,
            RecoveryTarget::AllLayers => self.config.num_layers,
        };
        let adapter = |&projection: &Projection| {
            let [out, input] = self.config.projection_shape(projection);
            2 * (recovery.rank.min(out).min(input) * (out + input)) as u64
        };
        let trained = match recovery.method {
            RecoveryMethod::Full => self.layer(),
            RecoveryMethod::Lora => Projection::ALL.iter().map(adapter).sum(),
        };
        let batch = Batch { windows: recovery.micro_batch_size, length: recovery.max_length };
        let one_layer = gradients::activation_bytes(self.config, batch);
        let activations = (one_layer * self.config.num_layers).min(gradients::ACTIVATIONS.max(2 * one_layer));
        5 * F32 * layers as u64 * trained + activations as u64 + 2 * F32 * LOGITS as u64
    }

    /// The layer whose matrices are being decomposed, and their sums.
    fn in_hand(&self, residency: Residency) -> u64 {
        let layer = match residency {
            Residency::Resident => 0,
            Residency::Streamed => self.layer(),
        };
        // A refinement holds a second sum of one site's inputs.
        let inputs = self.projections.iter().map(|&projection| self.config.projection_shape(projection)[1]);
        let cross = if self.needs.input { inputs.max().map_or(0, |input| (input * input) as u64) } else { 0 };
        F32 * (layer + self.sums() + cross)
    }

    /// The largest decomposition.
    fn decomposition(&self) -> u64 {
        let shapes = self.projections.iter().map(|&projection| self.config.projection_shape(projection));
        if self.layers == 0 { 0 } else { shapes.map(|shape| decomposition_bytes(shape, self.needs)).max().unwrap_or(0) }
    }

    fn elements(&self, projection: Projection) -> u64 {
        let [out, input] = self.config.projection_shape(projection);
        (out * input) as u64
    }

    /// Numbers of the chosen matrices of a layer.
    fn chosen(&self) -> u64 {
        self.projections.iter().map(|&projection| self.elements(projection)).sum()
    }

    /// Numbers of what the passes add up for a layer.
    fn sums(&self) -> u64 {
        self.needs.numbers(self.config, self.projections)
    }

    /// Numbers of the largest sum.
    fn largest_sum(&self) -> u64 {
        self.projections.iter().map(|&projection| self.needs.numbers(self.config, &[projection])).max().unwrap_or(0)
    }

    /// Numbers of the matrices of a layer.
    fn layer(&self) -> u64 {
        Projection::ALL.iter().map(|&projection| self.elements(projection)).sum()
    }

    fn embedding(&self) -> u64 {
        (self.config.vocab_size * self.config.hidden_size) as u64
    }

    /// Numbers of the embedding and the head.
    fn ends(&self) -> u64 {
        if self.config.tie_word_embeddings { self.embedding() } else { 2 * self.embedding() }
    }

    fn largest(&self) -> u64 {
        Projection::ALL.iter().map(|&projection| self.elements(projection)).max().unwrap_or(0).max(self.embedding())
    }
}

/// Bytes of one matrix's decomposition: W, U or W V and V in f64 with as much again for the eigenvectors' workspace, the
/// factors of A and C with as much again, and W and G in f32.
pub(super) const fn decomposition_bytes([out, input]: [usize; 2], needs: Needs) -> u64 {
    let square = if out < input { out * out } else { input * input };
    let (matrix, square) = ((out * input) as u64, square as u64);
    let left = if needs.output { 2 * (out * out) as u64 } else { 0 };
    let right = if needs.input { 2 * (input * input) as u64 } else { 0 };
    F64 * (3 * matrix + 4 * square + left + right) + 2 * F32 * matrix
}

/// Memory of this machine, or of the control group it is confined to, in bytes.
pub(crate) fn machine_bytes() -> u64 {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    let total = total.map_or(u64::MAX, |kibibytes| kibibytes * 1024);
    let confined = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    confined.and_then(|text| text.trim().parse().ok()).map_or(total, |limit: u64| limit.min(total))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The shape of Llama-2-7B.
    fn config() -> Config {
        Config::parse(&json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000,
            "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
            "max_position_embeddings": 4096}))
        .unwrap()
    }

    fn demand(config: &Config) -> Demand<'_> {
        Demand {
            config,
            parameters: 6_738_415_616,
            layers: 8,
            projections: &Projection::ALL,
            needs: Needs { gradient: true, input: false, output: false, squares: false },
            kept: 0.1,
            calibration: 128,
            evaluation: 128,
            written: None,
            recovery: None,
        }
    }

    #[test]
    fn the_limit_decides_where_the_layers_are() {
        let config = config();
        let plan = |gibibytes: u64| demand(&config).plan(gibibytes << 30).map(|plan| plan.residency);
        assert_eq!(plan(64).unwrap(), Residency::Resident);
        assert_eq!(plan(8).unwrap(), Residency::Streamed);
    }

    #[test]
    fn what_cannot_fit_says_how_much_it_needs_and_what_to_change() {
        let config = config();
        let failure = demand(&config).plan(2 << 30).unwrap_err().failure().unwrap();
        assert_eq!(failure.code, FailureCode::OutOfMemory);
        assert!(demand(&config).plan(failure.memory_needed.unwrap()).is_ok());
        for words in ["needs", "may use 2.0 GiB", "GRASPD_MEMORY_LIMIT", "calibration.sequence_length (128)"] {
            assert!(failure.message.contains(words), "{}", failure.message);
        }
    }

    #[test]
    fn answers_need_the_layers_in_memory_and_room_for_keys_and_values() {
        let config = config();
        let written = |longest| Demand { written: Some(longest), layers: 0, ..demand(&config) };
        // 32 layers of 2 · 4096 numbers a token, of two answers at once.
        let kept = 2 * 32 * 2 * 4096 * 4 * 2048;
        assert!(written(4096).writing() >= written(2048).writing() + kept);
        let failure = written(2048).plan(16 << 30).unwrap_err().failure().unwrap();
        assert!(failure.message.contains("which tasks whose answers the model writes ask for"), "{}", failure.message);
        let plan = written(2048).plan(failure.memory_needed.unwrap()).unwrap();
        assert_eq!(plan.residency, Residency::Resident);
    }

    #[test]
    fn longer_windows_need_more() {
        let config = config();
        // Without a decomposition, which needs more than either.
        let scored = |evaluation| Demand { layers: 0, evaluation, ..demand(&config) }.bytes(Residency::Streamed);
        assert!(scored(4096) > scored(128));
        assert!(demand(&config).bytes(Residency::Streamed) < 8 << 30);
        assert!(demand(&config).bytes(Residency::Resident) > 27 << 30);
    }
}
