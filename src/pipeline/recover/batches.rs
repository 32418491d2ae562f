//! Which examples a step learns from, and how they go through the model together.

use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use super::{examples::Example, schedule::derived};

/// Examples of about one length, padded to the longest of them. Attention is causal, so padding behind a sequence
/// changes nothing in it, and as it has no loss it has no gradient: no mask is needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MicroBatch {
    /// Token ids, all of one length.
    pub(super) windows: Vec<Vec<u32>>,
    /// Rows of the windows one after the other behind which a token is learned.
    pub(super) positions: Vec<u32>,
    /// Those tokens.
    pub(super) targets: Vec<u32>,
    /// Tokens of the examples, padding not counted.
    tokens: u64,
}

impl MicroBatch {
    /// Tokens of its examples, padding not counted.
    pub(super) const fn tokens(&self) -> u64 {
        self.tokens
    }

    fn new(examples: &[&Example]) -> Self {
        let length = examples.iter().map(|example| example.tokens.len()).max().unwrap_or(0);
        let (mut windows, mut positions, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (row, Example { tokens, first }) in examples.iter().enumerate() {
            positions.extend((*first..tokens.len()).map(|at| (row * length + at - 1) as u32));
            targets.extend(&tokens[*first..]);
            let mut window = tokens.clone();
            window.resize(length, 0);
            windows.push(window);
        }
        let tokens = examples.iter().map(|example| example.tokens.len() as u64).sum();
        Self { windows, positions, targets, tokens }
    }
}

/// Cuts examples into pieces of `size`, neighbours in length together, so that little is padded.
pub(super) fn by_length(mut examples: Vec<&Example>, size: usize) -> Vec<MicroBatch> {
    examples.sort_by_key(|example| example.tokens.len());
    examples.chunks(size).map(MicroBatch::new).collect()
}

/// The examples in the order of each epoch.
pub(super) struct Batches<'a> {
    pub(super) examples: &'a [Example],
    pub(super) batch_size: usize,
    pub(super) micro_batch_size: usize,
    pub(super) seed: u64,
}

impl Batches<'_> {
    /// Steps of an epoch; its last one may be short.
    pub(super) const fn per_epoch(&self) -> usize {
        self.examples.len().div_ceil(self.batch_size)
    }

    /// What step `step` (from 0) learns from: a function of the seed and the step alone.
    pub(super) fn at(&self, step: usize) -> Vec<MicroBatch> {
        let (epoch, index) = (step / self.per_epoch(), step % self.per_epoch());
        let mut order: Vec<&Example> = self.examples.iter().collect();
        order.shuffle(&mut StdRng::seed_from_u64(derived(self.seed, epoch as u64, 0)));
        let batch = order.into_iter().skip(index * self.batch_size).take(self.batch_size);
        by_length(batch.collect(), self.micro_batch_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(count: usize) -> Vec<Example> {
        (0..count as u32).map(|index| Example { tokens: vec![index; 2 + (index as usize * 7) % 5], first: 1 }).collect()
    }

    #[test]
    fn an_epoch_has_every_example_once_and_the_next_another_order() {
        let examples = examples(11);
        let batches = Batches { examples: &examples, batch_size: 4, micro_batch_size: 3, seed: 5 };
        assert_eq!(batches.per_epoch(), 3);
        let seen = |steps: std::ops::Range<usize>| -> Vec<u32> {
            steps.flat_map(|step| batches.at(step)).flat_map(|micro| micro.windows).map(|window| window[0]).collect()
        };
        let (first, second) = (seen(0..3), seen(3..6));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..11).collect::<Vec<u32>>());
        assert_ne!(first, second);
        assert_eq!(batches.at(2).iter().map(|micro| micro.windows.len()).sum::<usize>(), 3);
    }

    #[test]
    fn padding_is_never_a_target() {
        let (short, long) =
            (Example { tokens: vec![1, 2, 3], first: 2 }, Example { tokens: vec![4, 5, 6, 7], first: 1 });
        let micro = &by_length(vec![&long, &short], 2)[0];
        assert_eq!(micro.windows, [[1, 2, 3, 0], [4, 5, 6, 7]]);
        assert_eq!(micro.positions, [1, 4, 5, 6]);
        assert_eq!(micro.targets, [3, 5, 6, 7]);
    }
}
