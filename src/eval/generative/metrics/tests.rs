use super::*;

fn check(name: &str, cases: &[(&str, &str, f64)], score: impl Fn(&str, &str) -> f64) {
    for &(answer, reference, expected) in cases {
        let found = score(answer, reference);
        assert!((found - expected).abs() < 1e-12, "{name} {answer:?} {reference:?}: {found}, expected {expected}");
    }
}

// The numbers are those of LongBench/metrics.py at commit 2e00731 with rouge 1.0.1 and fuzzywuzzy 0.18.0, such as
// qa_f1_score("The Eiffel Tower, in Paris!", "eiffel tower").
#[test]
fn f1_counts_words_without_case_punctuation_and_articles() {
    let cases = [
        ("The Eiffel Tower, in Paris!", "eiffel tower", 2.0 / 3.0),
        ("a an the", "the", 0.0),
        ("no no yes", "yes no", 0.8),
        ("It was an X-ray\u{2019}s a", "xray", 0.0),
    ];
    check("f1", &cases, f1);
}

// rouge_score(…)
#[test]
fn rouge_l_is_that_of_the_package() {
    let cases = [
        (
            "The keeper rowed out at dawn. The boat was old.",
            "At dawn the keeper rowed out. His boat leaked.",
            0.444_444_439_444_444_5,
        ),
        ("a b c d", "b a d c", 0.499_999_995_000_000_1),
        ("a b a b. c ", "a c b a.", 0.999_999_995),
        ("same same same", "same", 0.999_999_995),
        ("x y z. x y. ", "z y x. y", 0.571_428_566_530_612_4),
        (
            "The council met in May. It agreed on the budget and the new road. ",
            "In May the council agreed on a budget. The road was not discussed.",
            0.444_444_439_451_303_2,
        ),
        ("", "a", 0.0),
        ("...", "a", 0.0),
        (" ", "a b", 0.0),
        ("one two", "three", 0.0),
    ];
    check("rouge_l", &cases, rouge_l);
}

// classification_score(…, all_classes=…)
#[test]
fn a_class_counts_less_among_others_that_are_named() {
    let classes = ["Food", "Fast food", "Other location", "Other", "City", "Letter like a-z", "Letter"];
    let classes = classes.map(str::to_owned);
    let cases = [
        ("City", "City", 1.0),
        ("Food and Fast food", "Fast food", 0.5),
        ("Other location", "Other", 0.5),
        ("Other location", "Other location", 1.0),
        ("Letter like a-z, City", "Letter like a-z", 0.5),
        ("none", "City", 0.0),
    ];
    check("accuracy", &cases, |answer, class| accuracy(answer, class, &classes));
    // The second of two that go stays, since the list moves up under the loop.
    let classes = ["a", "ab", "abc"].map(str::to_owned);
    check("accuracy", &[("ab abc", "abc", 0.5)], |answer, class| accuracy(answer, class, &classes));
}

// count_score(…), retrieval_score(…)
#[test]
fn numbers_are_compared_digit_for_digit() {
    let cases = [("There are 12, or 7 of 12", "12", 2.0 / 3.0), ("none", "3", 0.0), ("12a 012", "12", 0.5)];
    check("count", &cases, share_of_numbers);
    let cases = [("Paragraph 7, not 17", "Paragraph 7", 0.5), ("7", "Paragraph 17", 0.0)];
    check("retrieval", &cases, |answer, reference| share_of_numbers(answer, paragraph(reference).unwrap()));
    assert_eq!((paragraph("Paragraph Paragraph 30"), paragraph("Paragraph x 3")), (Some("30"), None));
}

// code_sim_score(…)
#[test]
fn the_first_line_of_code_is_compared() {
    let long = [
        "if (value == null) { throw new IllegalArgumentException(name + \" must not be null\"); } ".repeat(3),
        "if (other != null) { return new IllegalStateException(name + \" is not allowed here\"); } ".repeat(3),
    ];
    let cases = [
        ("\n\n# a comment\n    return x + 1\nmore", "    return x + 1", 1.0),
        ("return x+2", "    return x + 1", 0.69),
        ("", "x", 0.0),
        ("`", "", 1.0),
        ("// only\n# two", "x", 0.0),
        ("self.assertEqual(result, expected)", "self.assertEquals(expected, result)", 0.75),
        ("aaaaaaab", "ab", 0.4),
        (long[0].as_str(), long[1].as_str(), 0.59),
    ];
    check("code_similarity", &cases, code_similarity);
}

// difflib.SequenceMatcher(None, a, b).ratio()
#[test]
fn similarity_is_that_of_matching_blocks() {
    let (abab, baba) = ("ab".repeat(120), "ba".repeat(120));
    let cases = [
        ("abcd", "bcde", 0.75),
        ("private Thread", "private volatile Thread", 0.756_756_756_756_756_8),
        ("abxcd", "abcd", 0.888_888_888_888_888_8),
        ("xyz", "", 0.0),
        // Of a long text no character may begin a block that is too frequent.
        (abab.as_str(), baba.as_str(), 0.0),
    ];
    check("ratio", &cases, ratio);
}
