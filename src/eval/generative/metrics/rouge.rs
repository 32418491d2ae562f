//! ROUGE-L as the package `rouge` 1.0.1 of `PyPI` computes it, which is what `LongBench` uses: the F of recall and precision over
//! sets of words, not over their numbers.

use std::collections::HashSet;

use crate::eval::choices::is_space;

/// The package adds it to the divisor, so that it is never zero.
const SMALL: f64 = 1e-8;

/// For each pair of a sentence of the reference and one of the answer the words of a longest common subsequence; how many
/// different ones there are, as a share of the reference's different words (recall) and of the answer's (precision).
pub(in crate::eval::generative) fn rouge_l(answer: &str, reference: &str) -> f64 {
    let (answer, reference) = (sentences(answer), sentences(reference));
    if answer.is_empty() || reference.is_empty() {
        return 0.0;
    }
    let mut shared = HashSet::new();
    for sentence in &reference {
        for other in &answer {
            shared.extend(longest_common_subsequence(sentence, other));
        }
    }
    let different = |sentences: &[Vec<&str>]| sentences.iter().flatten().collect::<HashSet<_>>().len() as f64;
    let shared = shared.len() as f64;
    let (recall, precision) = (shared / different(&reference), shared / different(&answer));
    2.0 * precision * recall / (precision + recall + SMALL)
}

/// The words of what full stops separate. One of nothing but white space has an empty word; one of nothing is none.
fn sentences(text: &str) -> Vec<Vec<&str>> {
    text.split('.').filter(|sentence| !sentence.is_empty()).map(words).collect()
}

fn words(sentence: &str) -> Vec<&str> {
    let words: Vec<&str> = sentence.split(is_space).filter(|word| !word.is_empty()).collect();
    if words.is_empty() { vec![""] } else { words }
}

/// Of several, the one that is found from the end, going back in `y` where that loses nothing.
fn longest_common_subsequence<'a>(x: &[&'a str], y: &[&str]) -> Vec<&'a str> {
    let width = y.len() + 1;
    // lengths[i · width + j] is that of the first i words of x and the first j of y.
    let mut lengths = vec![0_u32; (x.len() + 1) * width];
    for (i, word) in x.iter().enumerate() {
        for (j, other) in y.iter().enumerate() {
            let (above, left) = (i * width + j + 1, (i + 1) * width + j);
            lengths[(i + 1) * width + j + 1] =
                if word == other { lengths[i * width + j] + 1 } else { lengths[above].max(lengths[left]) };
        }
    }
    let (mut i, mut j, mut found) = (x.len(), y.len(), Vec::new());
    while i > 0 && j > 0 {
        if x[i - 1] == y[j - 1] {
            found.push(x[i - 1]);
            (i, j) = (i - 1, j - 1);
        } else if lengths[(i - 1) * width + j] > lengths[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    found
}
