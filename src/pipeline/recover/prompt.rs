//! The prompts that instruction records become.

use crate::{eval::Instruction, job::spec::Template};

/// The text in front of the answer. Models tuned on Alpaca know these words; others would cost them quality.
pub(super) fn prompt(template: Template, record: &Instruction) -> String {
    let Instruction { instruction, input, .. } = record;
    match template {
        Template::Alpaca if input.trim().is_empty() => format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Response:\n"
        ),
        Template::Alpaca => format!(
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a \
             response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_has_a_heading_only_where_there_is_one() {
        let record = |input: &str| Instruction { instruction: "Add.".into(), input: input.into(), output: "3".into() };
        let with = prompt(Template::Alpaca, &record("1 and 2"));
        assert!(
            with.ends_with("request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"),
            "{with}"
        );
        assert!(with.contains("further context. Write a response"), "{with}");
        let without = prompt(Template::Alpaca, &record(" "));
        assert!(without.ends_with("request.\n\n### Instruction:\nAdd.\n\n### Response:\n"), "{without}");
    }
}
