//! Sharded repositories that are not quite right: the index decides what counts.

use std::fs;

use candle_core::Device;
use graspd::{
    checkpoint::{Error, Weights},
    job::FailureCode,
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;

use crate::{Client, fake::FakeHub};

const INDEX: &str = "model.safetensors.index.json";
const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

/// A file of weights with tensors of one number each.
fn shard(tensors: &[(&str, f32)]) -> Vec<u8> {
    let bytes: Vec<_> = tensors.iter().map(|(name, number)| (*name, number.to_le_bytes())).collect();
    let views = bytes.iter().map(|(name, bytes)| (*name, TensorView::new(Dtype::F32, vec![1], bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn repository(weight_map: &serde_json::Value) -> FakeHub {
    FakeHub::start()
        .small("config.json", "{}")
        .small(INDEX, json!({"metadata": {"total_size": 12}, "weight_map": weight_map}).to_string())
}

fn number(weights: &Weights, name: &str) -> f32 {
    weights.tensor(name, &[1], &Device::Cpu).unwrap().to_vec1::<f32>().unwrap()[0]
}

#[test]
fn of_a_tensor_that_two_shards_hold_the_index_says_which_counts() {
    for (owner, expected) in [(FIRST, 1.0), (SECOND, 2.0)] {
        let hub = repository(&json!({"twice": owner, "b": FIRST, "c": SECOND}))
            .large(FIRST, shard(&[("twice", 1.0), ("b", 3.0)]))
            .large(SECOND, shard(&[("twice", 2.0), ("c", 4.0)]));
        let client = Client::of(&hub);
        let weights = Weights::open(&client.fetch().unwrap().folder).unwrap();
        assert_eq!((number(&weights, "twice"), number(&weights, "b"), number(&weights, "c")), (expected, 3.0, 4.0));
        assert_eq!(weights.iter().count(), 3);
    }
}

#[test]
fn a_tensor_that_two_shards_hold_and_the_index_does_not_know_is_refused() {
    let hub = repository(&json!({"b": FIRST, "c": SECOND}))
        .large(FIRST, shard(&[("twice", 1.0), ("b", 3.0)]))
        .large(SECOND, shard(&[("twice", 2.0), ("c", 4.0)]));
    let client = Client::of(&hub);
    let error = Weights::open(&client.fetch().unwrap().folder).err().unwrap();
    assert!(matches!(&error, Error::Invalid { what, .. } if what.contains("twice")), "{error}");
    assert_eq!(error.failure().code, FailureCode::InvalidModel);
}

#[test]
fn a_shard_that_the_repository_lacks_is_named_before_weights_are_fetched() {
    let hub = repository(&json!({"a": FIRST, "b": SECOND})).large(FIRST, shard(&[("a", 1.0)]));
    let error = Client::of(&hub).fetch().unwrap_err();
    assert_eq!(error.failure().code, FailureCode::InvalidModel);
    assert!(error.to_string().contains(SECOND), "{error}");
    assert!(hub.downloads().iter().all(|(file, _)| file == INDEX), "{:?}", hub.downloads());
}

#[test]
fn a_shard_that_is_gone_from_the_folder_is_named() {
    let hub = repository(&json!({"a": FIRST, "b": SECOND}))
        .large(FIRST, shard(&[("a", 1.0)]))
        .large(SECOND, shard(&[("b", 2.0)]));
    let client = Client::of(&hub);
    let folder = client.fetch().unwrap().folder;
    fs::remove_file(folder.join(SECOND)).unwrap();
    let error = Weights::open(&folder).err().unwrap();
    assert!(error.to_string().contains(SECOND) && error.to_string().contains("missing"), "{error}");
}

#[test]
fn a_tensor_that_the_index_promises_and_no_shard_holds_is_named() {
    let hub = repository(&json!({"a": FIRST, "lost": SECOND}))
        .large(FIRST, shard(&[("a", 1.0)]))
        .large(SECOND, shard(&[("b", 2.0)]));
    let client = Client::of(&hub);
    let error = Weights::open(&client.fetch().unwrap().folder).err().unwrap();
    assert!(error.to_string().contains("lost"), "{error}");
}

#[test]
fn a_file_that_the_index_does_not_name_is_left_alone() {
    let hub = repository(&json!({"a": FIRST}))
        .large(FIRST, shard(&[("a", 1.0)]))
        .large("consolidated.safetensors", shard(&[("a", 9.0)]))
        .large("model.safetensors", shard(&[("a", 8.0)]));
    let client = Client::of(&hub);
    let folder = client.fetch().unwrap().folder;
    assert!(!folder.join("consolidated.safetensors").exists() && !folder.join("model.safetensors").exists());
    assert_eq!(number(&Weights::open(&folder).unwrap(), "a").to_bits(), 1.0_f32.to_bits());
}
