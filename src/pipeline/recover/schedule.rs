//! How many steps there are, and the learning rate of each.

use std::f64::consts::PI;

use crate::job::spec::{LearningRateSchedule, Recovery};

/// Optimiser steps of the whole training.
pub(super) fn steps(recovery: &Recovery, per_epoch: usize) -> usize {
    let all = recovery.epochs.saturating_mul(per_epoch);
    recovery.max_steps.map_or(all, |most| all.min(most))
}

/// The learning rate of step `step` (from 0) of `total`: it rises in a straight line for the first steps, at most a
/// tenth of all, and falls to nought after the last.
pub(super) fn learning_rate(recovery: &Recovery, step: usize, total: usize) -> f64 {
    let warmup = recovery.warmup_steps.min(total / 10);
    if step < warmup {
        return recovery.learning_rate * (step + 1) as f64 / warmup as f64;
    }
    let gone = (step - warmup) as f64 / (total - warmup) as f64;
    recovery.learning_rate
        * match recovery.lr_schedule {
            LearningRateSchedule::Linear => 1.0 - gone,
            LearningRateSchedule::Cosine => f64::midpoint(1.0, (PI * gone).cos()),
        }
}

/// A seed that follows from three numbers (the finaliser of splitmix64 after each).
pub(super) fn derived(seed: u64, a: u64, b: u64) -> u64 {
    [seed, a, b].into_iter().fold(0, |state: u64, number| {
        let x = (state ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::job::JobSpec;

    fn recovery(body: &Value) -> Recovery {
        JobSpec::parse(&json!({"model": "a/b", "recovery": body})).unwrap().recovery.unwrap()
    }

    #[test]
    fn the_rate_rises_for_a_tenth_of_the_steps_at_most_and_falls_to_nought() {
        for schedule in ["linear", "cosine"] {
            let recovery = recovery(&json!({"learning_rate": 0.1, "warmup_steps": 100, "lr_schedule": schedule}));
            let rates: Vec<f64> = (0..50).map(|step| learning_rate(&recovery, step, 50)).collect();
            assert!(
                (rates[0] - 0.02).abs() < 1e-12 && (rates[4] - 0.1).abs() < 1e-12 && (rates[5] - 0.1).abs() < 1e-12
            );
            assert!(rates[5..].windows(2).all(|pair| pair[1] < pair[0]) && rates[49] > 0.0 && rates[49] < 0.003);
        }
        let short = recovery(&json!({}));
        assert!((learning_rate(&short, 0, 1) - 3e-4).abs() < 1e-12, "a single step goes at the full rate");
    }

    #[test]
    fn the_limit_of_steps_wins_over_the_epochs() {
        assert_eq!(steps(&recovery(&json!({"epochs": 3})), 7), 21);
        assert_eq!(steps(&recovery(&json!({"epochs": 3, "max_steps": 5})), 7), 5);
        assert_eq!(steps(&recovery(&json!({"epochs": 1, "max_steps": 50})), 7), 7);
    }

    #[test]
    fn derived_seeds_differ_in_every_argument() {
        let seeds = [derived(1, 0, 0), derived(0, 1, 0), derived(0, 0, 1), derived(1, 1, 0)];
        assert!((0..4).all(|a| (0..a).all(|b| seeds[a] != seeds[b])));
    }
}
