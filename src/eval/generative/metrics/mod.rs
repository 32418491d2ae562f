//! How far what a model wrote is what it should have written, each from 0 to 1.

mod rouge;
mod similarity;
mod words;

pub(super) use rouge::rouge_l;
use similarity::ratio;
pub(super) use words::{exact, f1, f1_or_both_empty};

/// The first line behind empty ones.
pub(super) fn first_line(text: &str) -> &str {
    text.trim_start_matches('\n').split('\n').next().unwrap_or_default()
}

/// `LongBench`'s score of a class: one over the number of classes that the answer names, those not counted that are part of
/// the right one's name; none where the right one is not named.
pub(super) fn accuracy(answer: &str, class: &str, classes: &[String]) -> f64 {
    let mut named: Vec<&str> = classes.iter().map(String::as_str).filter(|other| answer.contains(other)).collect();
    // The list shrinks while it is gone through, so what follows one that goes is passed over: as it is there.
    let mut index = 0;
    while let Some(&other) = named.get(index) {
        if other != class && class.contains(other) {
            named.remove(index);
        }
        index += 1;
    }
    if named.contains(&class) { 1.0 / named.len() as f64 } else { 0.0 }
}

/// The share of the numbers in the answer that are `number`, digit for digit.
pub(super) fn share_of_numbers(answer: &str, number: &str) -> f64 {
    let numbers: Vec<&str> = numbers(answer).collect();
    let right = numbers.iter().filter(|&&other| other == number).count();
    if numbers.is_empty() { 0.0 } else { right as f64 / numbers.len() as f64 }
}

/// The number in `Paragraph 7`.
pub(super) fn paragraph(answer: &str) -> Option<&str> {
    let behind = answer.split("Paragraph ").skip(1);
    behind.filter(|text| text.starts_with(is_digit)).find_map(|text| numbers(text).next())
}

fn numbers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_digit(c)).filter(|number| !number.is_empty())
}

const fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// `LongBench`'s score of code: how similar the answer's first line is that holds no comment and no mark of a block, in
/// whole hundredths as fuzzywuzzy gives it.
pub(super) fn code_similarity(answer: &str, line: &str) -> f64 {
    let mut lines = answer.trim_start_matches('\n').split('\n');
    let is_code = |line: &&str| !["`", "#", "//"].iter().any(|mark| line.contains(mark));
    let first = lines.find(is_code).unwrap_or_default();
    let similarity = match (first == line, first.is_empty() || line.is_empty()) {
        (true, _) => 1.0,
        (false, true) => 0.0,
        (false, false) => ratio(first, line),
    };
    // Python rounds halves to even.
    (100.0 * similarity).round_ties_even() / 100.0
}

#[cfg(test)]
mod tests;
