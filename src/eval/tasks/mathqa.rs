//! `MathQA`, whose choices stand in one line: `a ) 1 , b ) 2 , c ) 3 , d ) 4 , e ) 5`.

use serde::Deserialize;

use super::Question;

#[derive(Deserialize)]
#[expect(non_snake_case, reason = "the data set's own names")]
pub(super) struct Record {
    Problem: String,
    options: String,
    correct: String,
}

impl super::Record for Record {
    fn question(self) -> Result<Question, String> {
        let letters = ["a", "b", "c", "d", "e"];
        let gold = letters.iter().position(|letter| *letter == self.correct);
        let gold =
            gold.ok_or_else(|| format!("has the correct option '{}': it must be one of a to e", self.correct))?;
        Ok(Question::of_choices(&format!("Question: {}\nAnswer:", self.Problem), choices(&self.options), gold))
    }
}

/// Each choice ends at the first comma with a space, so a choice that has one inside is cut there; `e` is the rest of
/// the line and only counts where it begins with it. An empty choice stays one.
fn choices(options: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = options;
    while let Some(letter) = rest.chars().next() {
        let length = match rest.get(1..4) {
            Some(" ) ") if matches!(letter, 'a'..='d') => end_of_choice(rest),
            Some(" ) ") if letter == 'e' && !rest.trim_end_matches('\n').contains('\n') => Some(rest.len()),
            _ => None,
        };
        if let Some(length) = length {
            found.push(rest[4..length].trim_end_matches([' ', ',']).to_owned());
        }
        rest = &rest[length.unwrap_or(letter.len_utf8())..];
    }
    found
}

/// Behind the comma and space that end the choice which `rest` begins with; within the line.
fn end_of_choice(rest: &str) -> Option<usize> {
    let comma = 4 + rest[4..].find(", ")?;
    (!rest[..comma].contains('\n')).then_some(comma + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_cut_as_the_task_file_cuts_it() {
        assert_eq!(choices("a ) 1 , b ) 2 m , c ) 3 , d ) none , e ) 5 , 6"), ["1", "2 m", "3", "none", "5 , 6"]);
        assert_eq!(choices("a ) 30, b ) , c ) 2, 3, d ) 38, "), ["30", "", "2", "38"]);
        assert_eq!(choices("a ) é, b ) 4"), ["é"]);
    }
}
