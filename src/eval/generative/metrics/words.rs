//! Words in common, as `SQuAD`'s evaluation counts them.

use std::collections::HashMap;

use crate::eval::choices::is_space;

const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// 1 where both have the same words in the same order, else 0.
pub(in crate::eval::generative) fn exact(answer: &str, reference: &str) -> f64 {
    f64::from(words(answer) == words(reference))
}

/// F1 of the words, however they are ordered.
pub(in crate::eval::generative) fn f1(answer: &str, reference: &str) -> f64 {
    let (answer, reference) = (words(answer), words(reference));
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in &reference {
        *left.entry(word).or_default() += 1;
    }
    let mut shared = 0.0;
    for word in &answer {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1.0;
        }
    }
    if shared == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (shared / answer.len() as f64, shared / reference.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// As [`f1`], and 1 where neither has a word.
pub(in crate::eval::generative) fn f1_or_both_empty(answer: &str, reference: &str) -> f64 {
    if words(answer).is_empty() && words(reference).is_empty() { 1.0 } else { f1(answer, reference) }
}

/// The words in small letters, without punctuation and articles.
fn words(text: &str) -> Vec<String> {
    let text: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    without_articles(&text).split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// An article is whatever stands between characters that are no letters and no digits; a space takes its place.
fn without_articles(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len()));
        let (gap, others) = behind.split_at(behind.find(char::is_alphanumeric).unwrap_or(behind.len()));
        kept.push_str(if ARTICLES.contains(&word) { " " } else { word });
        kept.push_str(gap);
        rest = others;
    }
    kept
}
