use serde_json::json;

use super::*;

#[test]
fn winogrande_scores_what_follows_the_gap() {
    let record =
        json!({"sentence": "Ann thanked Bea because _ had helped.", "option1": "Ann", "option2": "Bea", "answer": "2"});
    let asked = question(TaskName::Winogrande, record).unwrap();
    assert_eq!(asked.pairs[0], ("Ann thanked Bea because Ann".to_owned(), "had helped.".to_owned()));
    assert_eq!(asked.example().unwrap(), "Ann thanked Bea because Bea had helped.");
}

#[test]
fn a_right_choice_that_is_not_there_counts_as_wrong() {
    let record = json!({"Problem": "1 + 1 ?", "options": "a ) 1, b ) 2, c ) 3, d ) 4, ", "correct": "e"});
    let asked = question(TaskName::Mathqa, record).unwrap();
    assert_eq!((asked.gold, asked.example(), asked.pairs.len()), (None, None, 4));
}

#[test]
fn labels_come_as_numbers_and_as_text() {
    for label in [json!(1), json!("1")] {
        let record = json!({"goal": "g", "sol1": "a", "sol2": "bb", "label": label});
        let asked = question(TaskName::Piqa, record).unwrap();
        assert_eq!((asked.example().unwrap().as_str(), asked.lengths), ("Question: g\nAnswer: bb", vec![1, 2]));
    }
    let record = json!({"passage": "p", "question": "is it", "answer": true});
    assert_eq!(question(TaskName::Boolq, record).unwrap().example().unwrap(), "p\nQuestion: is it?\nAnswer: yes");
}

#[test]
fn what_is_wrong_with_a_record_is_said() {
    for (task, record, word) in [
        (
            TaskName::ArcEasy,
            json!({"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"}),
            "'B'",
        ),
        (TaskName::Winogrande, json!({"sentence": "no", "option1": "", "option2": "", "answer": "1"}), "gap"),
        (TaskName::Boolq, json!({"passage": "p", "question": "q"}), "'answer'"),
        (TaskName::Piqa, json!({"goal": "g"}), "sol1"),
    ] {
        let complaint = question(task, record).unwrap_err();
        assert!(complaint.contains(word), "{complaint}");
    }
}
