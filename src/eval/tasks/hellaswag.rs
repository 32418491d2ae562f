//! `HellaSwag`: half of it comes from `WikiHow`, whose pages leave marks in brackets.

use serde::Deserialize;

use super::{Label, Question};

#[derive(Deserialize)]
pub(super) struct Record {
    activity_label: String,
    ctx_a: String,
    ctx_b: String,
    endings: Vec<String>,
    label: Label,
}

impl super::Record for Record {
    fn question(self) -> Result<Question, String> {
        let context = format!("{}: {} {}", self.activity_label, self.ctx_a, capitalised(&self.ctx_b));
        let endings = self.endings.iter().map(|ending| cleaned(ending)).collect();
        Ok(Question::of_choices(&cleaned(&context), endings, self.label.index()?))
    }
}

/// The first letter large and all others small.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    first + &letters.as_str().to_lowercase()
}

/// Without marks: a title's becomes a full stop, others go, and of two spaces one stays.
fn cleaned(text: &str) -> String {
    without_brackets(&text.trim().replace(" [title]", ". ")).replace("  ", " ")
}

/// Without `[`, the nearest `]` on the same line and what is between them.
fn without_brackets(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let inside = &rest[open..];
        let close = inside.find(']').filter(|&close| !inside[..close].contains('\n'));
        let (keep, skip) = close.map_or((open + 1, open + 1), |close| (open, open + close + 1));
        kept.push_str(&rest[..keep]);
        rest = &rest[skip..];
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_go_and_titles_end_a_sentence() {
        assert_eq!(
            cleaned(" How to knit [title] Buy yarn. [step] Go [substeps]  now. "),
            "How to knit. Buy yarn. Go  now."
        );
        assert_eq!(cleaned("a [ b"), "a [ b");
        assert_eq!(cleaned("a [b\n] c [d]"), "a [b\n] c ");
        assert_eq!(capitalised("the Man"), "The man");
    }
}
