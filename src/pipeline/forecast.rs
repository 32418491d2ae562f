//! When a job will be done: what each of its legs costs, counted from shapes, and how fast the ones before went.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Observer, cost, evaluate::Text, exams::Exams, refine, statistics::Needs};
use crate::{
    eval::{Volume, Windows},
    job::{
        JobSpec, Progress, Stage,
        spec::{Kind, Method, Recovery, Refine, Schedule},
    },
    model::{Batch, Config},
};

/// In the time of one operation of a decomposition a matrix product is taken to do so many: no more than a rough figure.
const SLOWNESS_OF_DECOMPOSITIONS: f64 = 2.0;
/// Below this share of a leg its own pace says little.
const TELLING_SHARE: f64 = 0.03;

/// A part of a job that goes once from its beginning to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Leg {
    /// The stage its progress names.
    pub stage: Stage,
    /// The part its progress names, where a stage has several legs.
    pub part: Option<String>,
    /// Floating-point operations, or what takes as long.
    pub flop: f64,
}

/// What a job works on.
pub(super) struct Material<'a> {
    pub(super) config: &'a Config,
    /// How many layers are compressed.
    pub(super) layers: usize,
    pub(super) windows: &'a Windows,
    pub(super) texts: &'a [Text],
    pub(super) exams: &'a Exams,
    /// How many examples are trained on.
    pub(super) examples: usize,
}

/// The legs of a job, in their order.
pub(super) fn legs(spec: &JobSpec, material: &Material<'_>) -> Vec<Leg> {
    let mut legs = match spec.kind {
        Kind::Compress => compression(spec, material),
        Kind::Recover => Vec::new(),
        Kind::Evaluate => return scores(material, "dense"),
    };
    legs.extend(scores(material, "compressed"));
    if let Some(recovery) = &spec.recovery {
        let flop = training(recovery, material);
        legs.push(Leg { stage: Stage::Recover, part: None, flop });
        legs.extend(scores(material, "recovered"));
    }
    legs
}

/// From the influence of the layers to the factors.
fn compression(spec: &JobSpec, material: &Material<'_>) -> Vec<Leg> {
    let Material { config, layers, windows, .. } = *material;
    let batch = Batch { windows: windows.windows.len(), length: windows.length };
    let mut legs = vec![Leg { stage: Stage::Influence, part: None, flop: cost::layers(config, batch) }];
    if spec.evaluation.as_ref().is_some_and(|evaluation| evaluation.compare_dense) {
        legs.extend(scores(material, "dense"));
    }
    if spec.grasp.method == Method::Remove {
        return legs;
    }
    // Which layers are redundant is not known yet: spread over the model.
    let chosen: Vec<usize> = (0..layers).map(|index| index * config.num_layers / layers.max(1)).collect();
    let flop = cost::gradients(config, &spec.grasp, &chosen, batch);
    let decompositions = layers as f64 * decompositions(spec, config);
    if spec.grasp.schedule == Schedule::Iterative {
        // The two take turns, block by block.
        legs.push(Leg { stage: Stage::Gradients, part: None, flop: flop + decompositions });
        return legs;
    }
    if Needs::of(spec.grasp.basis, spec.grasp.score).anything() {
        legs.push(Leg { stage: Stage::Gradients, part: None, flop });
    }
    let factorize = |part: Option<&str>, flop| Leg { stage: Stage::Factorize, part: part.map(str::to_owned), flop };
    match spec.grasp.refine {
        Refine::None => legs.push(factorize(None, decompositions)),
        Refine::Sequential => {
            // Without vectors first, which is a third of the time.
            legs.push(factorize(None, decompositions / 3.0));
            let again = cost::refinement(config, &spec.grasp, batch) + decompositions;
            legs.push(factorize(Some(refine::PART), again));
        }
    }
    legs
}

/// Every text and every task, as their progress names them.
fn scores(material: &Material<'_>, model: &str) -> Vec<Leg> {
    let config = material.config;
    let leg = |name: String, batch| {
        let flop = cost::layers(config, batch) + cost::head(config, batch);
        Leg { stage: Stage::Evaluate, part: Some(format!("{model}, {name}")), flop }
    };
    let of_text = |text: &Text| {
        leg(text.name.clone(), Batch { windows: text.windows.windows.len(), length: text.windows.length })
    };
    let of_task = |(task, volume): (&str, Volume)| {
        let length = (volume.tokens as usize).div_ceil(volume.count.max(1));
        leg(task.to_owned(), Batch { windows: volume.count, length })
    };
    material.texts.iter().map(of_text).chain(material.exams.tasks().map(of_task)).collect()
}

/// The decompositions of a layer: about 22 m n min(m, n) operations each (Golub and Van Loan, section 8.6), and of the
/// symmetric n × n matrices of the whitened bases 9 n³.
fn decompositions(spec: &JobSpec, config: &Config) -> f64 {
    let needs = Needs::of(spec.grasp.basis, spec.grasp.score);
    let of = |&projection| {
        let [out, input] = config.projection_shape(projection).map(|size| size as f64);
        let symmetric = |wanted: bool, size: f64| if wanted { 9.0 * size * size * size } else { 0.0 };
        22.0 * out * input * out.min(input) + symmetric(needs.input, input) + symmetric(needs.output, out)
    };
    SLOWNESS_OF_DECOMPOSITIONS * spec.grasp.projections.iter().map(of).sum::<f64>()
}

/// Every step forward through all layers, and back through about as many as are trained.
fn training(recovery: &Recovery, material: &Material<'_>) -> f64 {
    let Material { config, layers, examples, .. } = *material;
    let all = recovery.epochs * examples.div_ceil(recovery.batch_size);
    let steps = recovery.max_steps.map_or(all, |most| all.min(most));
    let batch = Batch { windows: steps * recovery.batch_size, length: recovery.max_length / 2 };
    let forward = cost::layers(config, batch);
    let back = layers as f64 / config.num_layers as f64;
    forward * (1.0 + 2.0 * back) + 3.0 * cost::head(config, batch)
}

/// Stands between a job and its watcher, and adds to every progress how long the job will still take.
pub(super) struct Forecast<'a> {
    watcher: &'a dyn Observer,
    course: Mutex<Course>,
}

impl<'a> Forecast<'a> {
    pub(super) fn new(watcher: &'a dyn Observer) -> Self {
        Self { watcher, course: Mutex::default() }
    }
}

impl Observer for Forecast<'_> {
    fn progress(&self, mut progress: Progress) {
        let mut course = self.course.lock().unwrap_or_else(PoisonError::into_inner);
        progress.seconds_left = course.note(&progress, Instant::now());
        drop(course);
        self.watcher.progress(progress);
    }

    fn step_finished(&self) {
        self.watcher.step_finished();
    }

    fn is_cancelled(&self) -> bool {
        self.watcher.is_cancelled()
    }

    fn expect(&self, legs: Vec<Leg>) {
        *self.course.lock().unwrap_or_else(PoisonError::into_inner) = Course { legs, ..Course::default() };
    }
}

/// How far a job is on its way.
#[derive(Default)]
struct Course {
    legs: Vec<Leg>,
    at: Option<Position>,
    /// Time and operations of the legs behind it, as far as this attempt went them.
    seconds: f64,
    flop: f64,
}

/// The leg at work.
#[derive(Clone, Copy)]
struct Position {
    leg: usize,
    /// When this attempt began it, and at which share: an earlier one may have done some of it.
    began: Instant,
    from: f64,
    /// Where it was last seen.
    seen: Instant,
    share: f64,
}

impl Position {
    fn time(&self) -> f64 {
        self.seen.duration_since(self.began).as_secs_f64()
    }

    /// The share of the leg that was done in this time.
    const fn way(&self) -> f64 {
        self.share - self.from
    }
}

impl Course {
    /// Seconds until the end; `None` while nothing can be said.
    fn note(&mut self, progress: &Progress, now: Instant) -> Option<u64> {
        if let Some(leg) = self.find(progress) {
            self.move_to(leg, progress, now);
        }
        let at = self.at?;
        let flop = self.flop + self.legs[at.leg].flop * at.way();
        let seconds = self.seconds + at.time();
        let pace = (flop > 0.0 && seconds > 0.0).then(|| seconds / flop)?;
        let here = match at.way() {
            way if way >= TELLING_SHARE => at.time() / way * (1.0 - at.share),
            _ => self.legs[at.leg].flop * (1.0 - at.share) * pace,
        };
        let after: f64 = self.legs[at.leg + 1..].iter().map(|leg| leg.flop * pace).sum();
        Some(Duration::try_from_secs_f64(here + after).ok()?.as_secs())
    }

    /// The leg that a progress belongs to: the one at work, or the next like it, by its part if one has that. What fits none,
    /// such as the reading of texts, is a short part of something else.
    fn find(&self, progress: &Progress) -> Option<usize> {
        let at = self.at.map_or(0, |at| at.leg);
        let next = |part: Option<&String>| {
            let fits = |leg: &Leg| leg.stage == progress.stage && leg.part.as_ref() == part;
            (at..self.legs.len()).find(|&index| fits(&self.legs[index]))
        };
        next(progress.part.as_ref()).or_else(|| next(None))
    }

    fn move_to(&mut self, leg: usize, progress: &Progress, now: Instant) {
        let share = (progress.done as f64 / progress.total.max(1) as f64).min(1.0);
        match &mut self.at {
            Some(at) if at.leg == leg => {
                at.share = at.share.max(share);
                at.seen = now;
            }
            at => {
                if let Some(left) = at.replace(Position { leg, began: now, from: share, seen: now, share }) {
                    self.seconds += left.time();
                    self.flop += self.legs[left.leg].flop * left.way();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(legs: &[(Stage, f64)]) -> Course {
        let legs = legs.iter().map(|&(stage, flop)| Leg { stage, part: None, flop }).collect();
        Course { legs, ..Course::default() }
    }

    /// What is left after each of the observations (stage, done of 10, second).
    fn left(course: &mut Course, observations: &[(Stage, u64, u64)]) -> Vec<Option<u64>> {
        let start = Instant::now();
        let note = |&(stage, done, second): &(Stage, u64, u64)| {
            course.note(&Progress::new(stage, done, 10), start + Duration::from_secs(second))
        };
        observations.iter().map(note).collect()
    }

    #[test]
    fn what_is_left_follows_from_the_pace_so_far() {
        let mut course = course(&[(Stage::Influence, 100.0), (Stage::Gradients, 300.0), (Stage::Evaluate, 100.0)]);
        let seen = [
            (Stage::Load, 5, 0),
            (Stage::Influence, 0, 10),
            (Stage::Influence, 5, 15),
            (Stage::Influence, 10, 20),
            (Stage::Gradients, 0, 20),
            // Twice as slow as the influence was: its own pace counts for itself, and all that was seen for the rest.
            (Stage::Gradients, 5, 50),
            (Stage::Publish, 0, 50),
        ];
        let expected = [None, None, Some(45), Some(40), Some(40), Some(46), Some(46)];
        assert_eq!(left(&mut course, &seen), expected);
    }

    #[test]
    fn a_resumed_job_counts_only_what_it_did_itself() {
        let mut course = course(&[(Stage::Influence, 1e6), (Stage::Gradients, 100.0), (Stage::Evaluate, 100.0)]);
        let seen = [(Stage::Gradients, 5, 0), (Stage::Gradients, 6, 2), (Stage::Evaluate, 0, 10)];
        assert_eq!(left(&mut course, &seen), [None, Some(8 + 20), Some(20)]);
    }

    #[test]
    fn texts_are_told_apart_by_their_names() {
        let leg = |part: &str| Leg { stage: Stage::Evaluate, part: Some(part.to_owned()), flop: 1.0 };
        let course = Course { legs: vec![leg("dense, a"), leg("dense, b"), leg("compressed, a")], ..Course::default() };
        let progress = |part: &str| Progress { part: Some(part.to_owned()), ..Progress::new(Stage::Evaluate, 0, 1) };
        let found = ["dense, b", "compressed, a", "reading boolq"].map(|part| course.find(&progress(part)));
        assert_eq!(found, [Some(1), Some(2), None]);
    }

    #[test]
    fn a_refinement_is_a_leg_of_its_own() {
        let leg = |part: Option<&str>| Leg { stage: Stage::Factorize, part: part.map(str::to_owned), flop: 1.0 };
        let course = Course { legs: vec![leg(None), leg(Some(refine::PART))], ..Course::default() };
        let progress =
            |part: Option<&str>| Progress { part: part.map(str::to_owned), ..Progress::new(Stage::Factorize, 0, 1) };
        let found = [None, Some("mlp"), Some(refine::PART)].map(|part| course.find(&progress(part)));
        assert_eq!(found, [Some(0), Some(0), Some(1)]);
    }

    #[test]
    fn the_default_job_expects_to_refine() {
        let spec = |grasp: serde_json::Value| {
            JobSpec::parse(&serde_json::json!({"model": "a/b", "grasp": grasp, "evaluation": null})).unwrap()
        };
        let config = Config::parse(&serde_json::json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
            "num_attention_heads": 4}))
        .unwrap();
        let windows = Windows { windows: vec![vec![0; 32]; 2], length: 32 };
        let exams = Exams::default();
        let material =
            Material { config: &config, layers: 4, windows: &windows, texts: &[], exams: &exams, examples: 0 };
        let flop = |grasp| compression(&spec(grasp), &material).iter().map(|leg| leg.flop).sum::<f64>();
        let (refined, once) = (flop(serde_json::json!({})), flop(serde_json::json!({"refine": "none"})));
        let both_forward = 2.0 * cost::layers(&config, Batch { windows: 2, length: 32 });
        assert!(refined - once > both_forward, "{refined} {once}");
    }
}
