//! `WikiText`'s pages as ordinary text, in the steps and the order of lm-evaluation-harness 0.4.9, oddities included:
//! scores are only comparable on the same text.

use super::choices::is_space;

/// What stands for what, before and after the brackets and quotation marks.
const BEFORE: [(&str, &str); 9] = [
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    (" : ", ": "),
    (" ; ", "; "),
    (" . ", ". "),
    (" ! ", "! "),
    (" ? ", "? "),
    (" , ", ", "),
];
const PAIRS: [(char, char); 5] = [('(', ')'), ('[', ']'), ('{', '}'), ('"', '"'), ('\'', '\'')];
const AFTER: [(&str, &str); 8] = [
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
];

/// The page without the marks of its tokens.
pub(super) fn wikitext(page: &str) -> String {
    let replaced = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
    let text = slashed(&page.replace("s '", "s'"));
    let text = BEFORE.iter().fold(text, replaced);
    let text = PAIRS.iter().fold(text, |text, &(open, close)| tightened(&text, open, close));
    AFTER.iter().fold(text, replaced)
}

/// lm-eval's replacement of `/' 5/` is a pattern that was meant to match: the digit is lost.
fn slashed(text: &str) -> String {
    (0..10).fold(text.to_owned(), |text, digit| text.replace(&format!("/' {digit}/"), "/'[0-9]/"))
}

/// Without white space behind every `open` and before the next `close`.
fn tightened(text: &str, open: char, close: char) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(open) {
        let Some((inside, others)) = behind.split_once(close) else { break };
        kept.push_str(before);
        kept.push(open);
        kept.push_str(inside.trim_matches(is_space));
        kept.push(close);
        rest = others;
    }
    kept + rest
}

/// Words of a text: what Python's `re.split(r"\s+", text)` yields, an empty one at either end included.
pub(super) fn count_words(text: &str) -> u64 {
    let mut words = 1;
    let mut in_space = false;
    for c in text.chars() {
        words += u64::from(is_space(c) && !in_space);
        in_space = is_space(c);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    // from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer
    // print(json.dumps(wikitext_detokenizer({"page": page}))); print(len(re.split(r"\s+", page)))
    #[test]
    fn pages_become_the_text_that_lm_eval_scores() {
        let cases = [
            (
                " = The keeper 's book = \n \n It ( a diary ) was kept from 1871 @-@ 2 , for 2 @,@ 400 days ; the sailors ' song \" Low tide \" is in it [ twice ] . \n = = Climate = = \n 26 ° C , { so } N says : hot ! \n",
                " = The keeper's book =\n\nIt (a diary) was kept from 1871-2, for 2,400 days; the sailors' song \"Low tide\" is in it [twice].\n== Climate ==\n26°C, {so} 1 says: hot!\n",
                58,
            ),
            ("a /' 5/ b 'c ' ( d", "a /'[0-9]/ b'c ' ( d", 8),
            (" = = = x = = = \n\n\u{1c}q ? ", " === x ===\n\n\u{1c}q? ", 11),
            ("( a ( b ) c )", "(a ( b) c )", 7),
            ("' a ' b 's ' c s ' d", "'a' b's' c s' d", 10),
            ("= = = = = 1 . 2 = =", "===== 1. 2 ==", 10),
            ("(  )\" \" x\u{a0}y", "()\"\" x\u{a0}y", 5),
        ];
        for (page, text, words) in cases {
            assert_eq!((wikitext(page).as_str(), count_words(page)), (text, words), "{page:?}");
        }
    }
}
