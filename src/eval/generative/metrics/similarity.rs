//! How similar two texts are, as Python's `difflib.SequenceMatcher(None, a, b).ratio()` has it: Ratcliff and Obershelp's
//! matching blocks.

use std::{collections::HashMap, ops::Range};

/// From this length on, characters that make up more than a hundredth of a text begin no block.
const LONG: usize = 200;

/// Twice the characters in matching blocks over all characters.
pub(super) fn ratio(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let all = a.len() + b.len();
    let blocks = Blocks { places: places(&b), a: &a, b: &b };
    if all == 0 { 1.0 } else { 2.0 * blocks.matched() as f64 / all as f64 }
}

/// Where in `text` each character stands, ascending.
fn places(text: &[char]) -> HashMap<char, Vec<usize>> {
    let mut places: HashMap<char, Vec<usize>> = HashMap::new();
    for (index, &c) in text.iter().enumerate() {
        places.entry(c).or_default().push(index);
    }
    if text.len() >= LONG {
        places.retain(|_, found| found.len() <= text.len() / 100 + 1);
    }
    places
}

struct Blocks<'a> {
    a: &'a [char],
    b: &'a [char],
    /// Of the characters of b.
    places: HashMap<char, Vec<usize>>,
}

impl Blocks<'_> {
    /// Characters in the longest block, in the longest before it and behind it, and so on.
    fn matched(&self) -> usize {
        let mut open = vec![(0..self.a.len(), 0..self.b.len())];
        let mut matched = 0;
        while let Some((a, b)) = open.pop() {
            let (i, j, length) = self.longest(&a, &b);
            if length > 0 {
                matched += length;
                open.push((a.start..i, b.start..j));
                open.push((i + length..a.end, j + length..b.end));
            }
        }
        matched
    }

    /// The longest block within both ranges as its starts and its length; of several the first in a, then in b.
    fn longest(&self, a: &Range<usize>, b: &Range<usize>) -> (usize, usize, usize) {
        let (mut start_a, mut start_b, mut length) = (a.start, b.start, 0);
        // Lengths of the blocks that end at the character of a before, by their last place in b.
        let mut ending: HashMap<usize, usize> = HashMap::new();
        for i in a.clone() {
            let mut next = HashMap::new();
            for &j in self.places.get(&self.a[i]).into_iter().flatten().filter(|&&j| b.contains(&j)) {
                let before = j.checked_sub(1).and_then(|j| ending.get(&j)).copied().unwrap_or(0);
                next.insert(j, before + 1);
                if before + 1 > length {
                    (start_a, start_b, length) = (i - before, j - before, before + 1);
                }
            }
            ending = next;
        }
        // Characters that begin no block may be part of one.
        while start_a > a.start && start_b > b.start && self.a[start_a - 1] == self.b[start_b - 1] {
            (start_a, start_b, length) = (start_a - 1, start_b - 1, length + 1);
        }
        while start_a + length < a.end
            && start_b + length < b.end
            && self.a[start_a + length] == self.b[start_b + length]
        {
            length += 1;
        }
        (start_a, start_b, length)
    }
}
