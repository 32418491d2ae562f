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

impl FromStr for TaskName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|task| task.as_str() == text)
            .ok_or_else(|| format!("'{text}' is not a known task: use {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}
