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

/// A task of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnyTask {
    /// Which of some answers is likeliest.
    Choice(TaskName),
    /// How likely a text is.
    Rolling(RollingTask),
}

impl AnyTask {
    /// The task, where it is multiple choice.
    pub const fn choice(self) -> Option<TaskName> {
        match self {
            Self::Choice(task) => Some(task),
            Self::Rolling(_) => None,
        }
    }

    /// The task, where it scores whole documents.
    pub const fn rolling(self) -> Option<RollingTask> {
        match self {
            Self::Choice(_) => None,
            Self::Rolling(task) => Some(task),
        }
    }
}

impl fmt::Display for AnyTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Choice(task) => task.as_str(),
            Self::Rolling(task) => task.as_str(),
        })
    }
}

impl FromStr for AnyTask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let choices = TaskName::ALL.into_iter().map(Self::Choice);
        let all: Vec<Self> = choices.chain(RollingTask::ALL.into_iter().map(Self::Rolling)).collect();
        let known = all.iter().copied().find(|task| task.to_string() == text);
        known.ok_or_else(|| {
            let names: Vec<String> = all.iter().map(ToString::to_string).collect();
            format!("'{text}' is not a known task: use {}", names.join(", "))
        })
    }
}
