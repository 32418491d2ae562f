//! A Rust file without its comments, strings and tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file's code.
pub(crate) struct Source {
    /// Path below the folder it was read from.
    pub(crate) name: String,
    /// The first part of that path, without an extension.
    pub(crate) layer: String,
    /// How many modules the file lies below the crate's root.
    depth: usize,
    code: String,
}

/// Every Rust file below a folder, but not what only tests see.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

impl Source {
    /// A file of the sources, without its tests.
    pub(crate) fn read(folder: &Path, path: &Path) -> Self {
        let name = path.strip_prefix(folder).unwrap().to_owned();
        // `tests.rs` and `tests/` inside a layer hold only tests.
        if name.iter().any(|part| part == "tests" || part == "tests.rs") {
            return Self::from_text(name, "");
        }
        Self::from_text(name, &fs::read_to_string(path).unwrap())
    }

    /// A file with its tests.
    pub(crate) fn read_whole(folder: &Path, path: &Path) -> Self {
        let mut source = Self::from_text(path.strip_prefix(folder).unwrap().to_owned(), "");
        source.code = without_strings(&fs::read_to_string(path).unwrap());
        source
    }

    /// As if `text` was in the file `name`.
    #[expect(clippy::needless_pass_by_value, reason = "callers make the name for it")]
    pub(crate) fn from_text(name: PathBuf, text: &str) -> Self {
        let module = name.with_extension("");
        let parts: Vec<String> = module.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let depth = parts.len() - usize::from(parts.last().is_some_and(|last| last == "mod" || last == "lib"));
        let mut code = without_comments(text);
        // Tests stand last in a file, and may use whatever they need.
        if let Some(start) = code.find("#[cfg(test)]\nmod tests {") {
            code.truncate(start);
        }
        Self { name: name.display().to_string(), layer: parts[0].clone(), depth, code }
    }

    /// Which of `layers` the code names, by line, once a line.
    pub(crate) fn imports(&self, layers: &[&str]) -> Vec<(usize, String)> {
        let up = format!("{}::", ["super"; 16][..self.depth.clamp(1, 16)].join("::"));
        let mut found = Vec::new();
        for prefix in ["crate::", up.as_str()] {
            for (start, _) in self.code.match_indices(prefix) {
                let before = &self.code[..start];
                if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                    continue;
                }
                let line = before.lines().count().max(1) + usize::from(before.ends_with('\n'));
                let line = if before.is_empty() { 1 } else { line };
                found.extend(first_names(&self.code[start + prefix.len()..]).into_iter().map(|name| (line, name)));
            }
        }
        found.retain(|(_, name)| layers.contains(&name.as_str()));
        found.sort();
        found.dedup();
        found
    }

    /// Lines with this whole word.
    pub(crate) fn lines_with_word(&self, word: &str) -> Vec<usize> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let has = |line: &str| {
            line.match_indices(word).any(|(start, _)| {
                let (before, after) = (&line[..start], &line[start + word.len()..]);
                let method = before.ends_with('.') && after.starts_with('(');
                !before.ends_with(is_word) && !after.starts_with(is_word) && !after.starts_with('!') && !method
            })
        };
        self.lines_that(has)
    }

    /// Lines with this text.
    pub(crate) fn lines_with_text(&self, text: &str) -> Vec<usize> {
        self.lines_that(|line| line.contains(text))
    }

    fn lines_that(&self, has: impl Fn(&str) -> bool) -> Vec<usize> {
        self.code.lines().enumerate().filter(|(_, line)| has(line)).map(|(index, _)| index + 1).collect()
    }
}

/// The first name of every path that follows: one, or those of a group in braces.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn without_comments(text: &str) -> String {
    strip(text, false)
}

fn without_strings(text: &str) -> String {
    strip(text, true)
}

/// Blanks what strings hold, and comments unless they are kept; line breaks stay where they are.
fn strip(text: &str, keep_comments: bool) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (length, kept) = piece(rest, c, keep_comments);
        if kept {
            code.push_str(&rest[..length]);
        } else {
            code.extend(rest[..length].chars().filter(|c| *c == '\n'));
            // Words on both sides of what is gone stay two.
            code.push(' ');
        }
        rest = &rest[length..];
    }
    code
}

/// The length of the piece that begins here, and whether it is code.
fn piece(rest: &str, c: char, keep_comments: bool) -> (usize, bool) {
    let until = |text: &str, end: &str| text.find(end).map_or(text.len(), |at| at + end.len());
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), keep_comments);
    }
    if rest.starts_with("/*") {
        return (until(rest, "*/"), keep_comments);
    }
    if c == 'r' || c.is_alphabetic() || c == '_' {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if c == 'r' && rest[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return (2 + hashes + until(&rest[2 + hashes..], &end), false);
        }
        // A whole word at once, so that the r of `for "x"` begins no string.
        return (rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()), true);
    }
    match c {
        '"' => (quoted(rest, '"'), false),
        '\'' if rest[1..].starts_with('\\') || rest[1..].chars().nth(1) == Some('\'') => (quoted(rest, '\''), false),
        other => (other.len_utf8(), true),
    }
}

/// The length of a literal between quotes.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}
