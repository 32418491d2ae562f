use serde_json::json;

use super::*;

#[test]
fn every_task_has_a_form_and_longbench_a_prompt() {
    for task in GenerationTask::ALL {
        let form = Form::of(task);
        assert!(form.max_new_tokens >= 32 && !form.metric.names().is_empty(), "{task}");
        if task.longbench().is_some() {
            let record = json!({"input": "{context}", "context": "C", "answers": ["Paragraph 1"], "all_classes": null});
            let Asked { prompt, .. } = asked(task, record).unwrap();
            assert!(!prompt.contains("{input}") && prompt.contains('C'), "{task}: {prompt}");
        }
    }
    assert!(Form::of(GenerationTask::SamSum).ends_at_newline);
}

#[test]
fn the_context_and_the_input_take_their_places() {
    let record =
        json!({"input": "I {context}?", "context": "Some {input}.", "answers": ["a"], "length": 3, "_id": "x"});
    let asked = asked(GenerationTask::Trec, record).unwrap();
    let expected = "Please determine the type of the question below. Here are some examples of questions.\n\nSome {input}.\nI {context}?";
    assert_eq!((asked.prompt.as_str(), asked.references), (expected, vec!["a".to_owned()]));
}

// from lm_eval.tasks.coqa.utils import doc_to_text, doc_to_target
#[test]
fn coqa_asks_the_last_question_after_all_the_others() {
    let record = json!({
        "story": "A story.",
        "questions": {"input_text": ["Who?", "Where?", "When?"]},
        "answers": {"input_text": ["Ann", "at sea", "in May"]},
        "additional_answers": {
            "0": {"input_text": ["x", "y", "May"]},
            "1": {"input_text": ["x", "y", "IN MAY"]},
            "2": {"input_text": ["x", "y", "spring"]},
        },
    });
    let asked = asked(GenerationTask::Coqa, record).unwrap();
    assert_eq!(asked.prompt, "A story.\n\nQ: Who?\n\nA: Ann\n\nQ: Where?\n\nA: at sea\n\nQ: When?\n\nA:");
    assert_eq!(asked.references, ["in May", "May", "spring"]);
}

// from lm_eval.tasks.coqa.utils import process_results
#[test]
fn people_leave_one_out_of_coqas_answers() {
    for (references, answer, em, f1) in [
        (vec!["the red boat"], " Red boat.\nQ: more", 1.0, 1.0),
        (vec!["the red boat", "red", "A BOAT"], "the red boat", 2.0 / 3.0, 8.0 / 9.0),
        (vec!["yes", "no"], "yes", 0.5, 0.5),
        (vec!["the", "a"], "an", 1.0, 1.0),
        (vec!["white", "white fur", "It was white"], "a white cat", 0.0, 11.0 / 18.0),
        (vec!["Bob", "bob smith"], "", 0.0, 0.0),
    ] {
        let owned: Vec<String> = references.iter().map(|&text| text.to_owned()).collect();
        let found = coqa::scores(&owned, answer);
        assert!((found[0] - em).abs() < 1e-12 && (found[1] - f1).abs() < 1e-12, "{references:?} {answer:?}: {found:?}");
    }
}

#[test]
fn an_answer_ends_where_the_first_stop_text_begins() {
    let form = Form { until: vec!["\nQ:".to_owned(), "||".to_owned()], ..Form::of(GenerationTask::Coqa) };
    assert_eq!((form.until("no end\nQ"), form.until("a || b\nQ: c")), (None, Some(2)));
    assert_eq!(form.cut_off("the boat\nQ: what? ||".to_owned()), "the boat");
    assert_eq!(form.cut_off("the boat".to_owned()), "the boat");
}

#[test]
fn only_the_first_line_counts_where_it_is_to() {
    let reference = vec!["a red boat".to_owned()];
    let prompt = Prompt { tokens: vec![0], max_new_tokens: 32, references: reference, classes: Vec::new() };
    let score = |task, answer| Form::of(task).score(&prompt, answer);
    assert_eq!(score(GenerationTask::TriviaQa, "\n\nthe red boat\nPassage: no"), [1.0]);
    assert!(score(GenerationTask::HotpotQa, "\n\nthe red boat\nPassage: no")[0] < 1.0);
}

// statistics.stdev(scores) / math.sqrt(4)
#[test]
fn the_standard_error_is_that_of_the_mean_of_a_sample() {
    let (found, stderr) = mean(&[0.0, 0.5, 1.0, 0.25]);
    assert!((found - 0.4375).abs() < 1e-12 && (stderr.unwrap() - 0.213_478_140_957_491_62).abs() < 1e-12);
    assert_eq!(mean(&[0.5]), (0.5, None));
}

#[test]
fn what_is_wrong_with_a_record_is_said() {
    let turns = |texts: &[&str]| json!({"input_text": texts});
    let longbench = |answers: &[&str]| json!({"input": "i", "context": "c", "answers": answers});
    for (task, record, word) in [
        (
            GenerationTask::Coqa,
            json!({"story": "s", "questions": turns(&["a", "b"]), "answers": turns(&["c"])}),
            "2 questions and 1 answers",
        ),
        (
            GenerationTask::Coqa,
            json!({"story": "s", "questions": turns(&["a"]), "answers": turns(&["c"]), "additional_answers": {"0": turns(&[])}}),
            "additional_answers.0",
        ),
        (GenerationTask::HotpotQa, longbench(&[]), "no answers"),
        (GenerationTask::PassageRetrieval, longbench(&["seven"]), "'Paragraph'"),
        (GenerationTask::Lcc, json!({"input": "i"}), "context"),
    ] {
        let complaint = asked(task, record).unwrap_err();
        assert!(complaint.contains(word), "{complaint}");
    }
}
