//! Scores, and the texts they are taken on.
