use std::{fmt, str::FromStr};

/// A multiple-choice task, named and defined as in lm-evaluation-harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskName {
    /// `OpenBookQA`, without the book.
    Openbookqa,
    /// AI2 reasoning challenge, easy set.
    ArcEasy,
    /// AI2 reasoning challenge, challenge set.
    ArcChallenge,
    /// `WinoGrande` XL.
    Winogrande,
    /// `HellaSwag`.
    Hellaswag,
    /// Physical interaction QA.
    Piqa,
    /// `MathQA`.
    Mathqa,
    /// `BoolQ`, as in `SuperGLUE`.
    Boolq,
}

impl TaskName {
    /// The paper's seven, then `BoolQ`.
    pub const ALL: [Self; 8] = [
        Self::Openbookqa,
        Self::ArcEasy,
        Self::ArcChallenge,
        Self::Winogrande,
        Self::Hellaswag,
        Self::Piqa,
        Self::Mathqa,
        Self::Boolq,
    ];

    /// The name in specs and reports, and of the folder with its data.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Openbookqa => "openbookqa",
            Self::ArcEasy => "arc_easy",
            Self::ArcChallenge => "arc_challenge",
            Self::Winogrande => "winogrande",
            Self::Hellaswag => "hellaswag",
            Self::Piqa => "piqa",
            Self::Mathqa => "mathqa",
            Self::Boolq => "boolq",
        }
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task that scores whole documents, named and defined as in lm-evaluation-harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RollingTask {
    /// The pages of `WikiText-2`, detokenised.
    Wikitext,
}

impl RollingTask {
    /// Every one.
    pub const ALL: [Self; 1] = [Self::Wikitext];

    /// The name in specs and reports, and of the folder with its data.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wikitext => "wikitext",
        }
    }
}

impl fmt::Display for RollingTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task whose answers the model writes: `CoQA`, named and defined as in lm-evaluation-harness, and the English data sets
/// of `LongBench` (arXiv 2308.14508), defined there and named as in lm-evaluation-harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GenerationTask {
    /// The last question of a conversation about a story.
    Coqa,
    /// Questions about a novel or a film script.
    NarrativeQa,
    /// Questions about a scientific article.
    Qasper,
    /// Questions about one document of many kinds.
    MultiFieldQa,
    /// Questions whose answers are in two of the passages.
    HotpotQa,
    /// Questions that take up to five steps over Wikipedia's articles.
    TwoWikiMultihopQa,
    /// Questions that take up to four steps.
    MuSiQue,
    /// Summaries of reports.
    GovReport,
    /// Summaries of meetings, as a query asks.
    QmSum,
    /// Summaries of several articles.
    MultiNews,
    /// Kinds of questions, from examples.
    Trec,
    /// Trivia, from examples.
    TriviaQa,
    /// Summaries of dialogues, from examples.
    SamSum,
    /// How many paragraphs differ.
    PassageCount,
    /// Which paragraph an abstract is of.
    PassageRetrieval,
    /// The next line of code.
    Lcc,
    /// The next line of code, across files.
    RepoBenchP,
}

impl GenerationTask {
    /// Every one.
    pub const ALL: [Self; 17] = [
        Self::Coqa,
        Self::NarrativeQa,
        Self::Qasper,
        Self::MultiFieldQa,
        Self::HotpotQa,
        Self::TwoWikiMultihopQa,
        Self::MuSiQue,
        Self::GovReport,
        Self::QmSum,
        Self::MultiNews,
        Self::Trec,
        Self::TriviaQa,
        Self::SamSum,
        Self::PassageCount,
        Self::PassageRetrieval,
        Self::Lcc,
        Self::RepoBenchP,
    ];

    /// The name in specs and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coqa => "coqa",
            Self::NarrativeQa => "longbench_narrativeqa",
            Self::Qasper => "longbench_qasper",
            Self::MultiFieldQa => "longbench_multifieldqa_en",
            Self::HotpotQa => "longbench_hotpotqa",
            Self::TwoWikiMultihopQa => "longbench_2wikimqa",
            Self::MuSiQue => "longbench_musique",
            Self::GovReport => "longbench_gov_report",
            Self::QmSum => "longbench_qmsum",
            Self::MultiNews => "longbench_multi_news",
            Self::Trec => "longbench_trec",
            Self::TriviaQa => "longbench_triviaqa",
            Self::SamSum => "longbench_samsum",
            Self::PassageCount => "longbench_passage_count",
            Self::PassageRetrieval => "longbench_passage_retrieval_en",
            Self::Lcc => "longbench_lcc",
            Self::RepoBenchP => "longbench_repobench-p",
        }
    }

    /// The data set's name at `LongBench`, where it is one of its.
    pub fn longbench(self) -> Option<&'static str> {
        self.as_str().strip_prefix("longbench_")
    }
}

impl fmt::Display for GenerationTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnyTask {
    /// Which of some answers is likeliest.
    Choice(TaskName),
    /// How likely a text is.
    Rolling(RollingTask),
    /// What the model writes.
    Generation(GenerationTask),
}

impl AnyTask {
    /// The task, where it is multiple choice.
    pub const fn choice(self) -> Option<TaskName> {
        match self {
            Self::Choice(task) => Some(task),
            Self::Rolling(_) | Self::Generation(_) => None,
        }
    }

    /// The task, where it scores whole documents.
    pub const fn rolling(self) -> Option<RollingTask> {
        match self {
            Self::Rolling(task) => Some(task),
            Self::Choice(_) | Self::Generation(_) => None,
        }
    }

    /// The task, where the model writes the answers.
    pub const fn generation(self) -> Option<GenerationTask> {
        match self {
            Self::Generation(task) => Some(task),
            Self::Choice(_) | Self::Rolling(_) => None,
        }
    }
}

impl fmt::Display for AnyTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Choice(task) => task.as_str(),
            Self::Rolling(task) => task.as_str(),
            Self::Generation(task) => task.as_str(),
        })
    }
}

impl FromStr for AnyTask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let choices = TaskName::ALL.into_iter().map(Self::Choice);
        let rolling = RollingTask::ALL.into_iter().map(Self::Rolling);
        let generation = GenerationTask::ALL.into_iter().map(Self::Generation);
        let all: Vec<Self> = choices.chain(rolling).chain(generation).collect();
        let known = all.iter().copied().find(|task| task.to_string() == text);
        known.ok_or_else(|| {
            let names: Vec<String> = all.iter().map(ToString::to_string).collect();
            format!("'{text}' is not a known task: use {}", names.join(", "))
        })
    }
}
