//! Reads the sources as text, so that the layers and the house rules cannot rot.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, helpers included")]

mod source;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use source::{Source, rust_files};

const LONGEST_FILE: usize = 400;

/// A folder of `src` (or a file beside them) and what it may know.
struct Layer {
    name: &'static str,
    /// Other layers it may import.
    may_import: &'static [&'static str],
    /// Crates it must never name.
    never: &'static [&'static str],
    /// Whether it may wait.
    may_await: bool,
}

const ALL: &[&str] = &[
    "app",
    "artifact",
    "checkpoint",
    "cli",
    "clock",
    "config",
    "eval",
    "fault",
    "http",
    "job",
    "linalg",
    "model",
    "pipeline",
    "queue",
    "telemetry",
    "worker",
];

const fn layer(name: &'static str, may_import: &'static [&'static str], never: &'static [&'static str]) -> Layer {
    Layer { name, may_import, never, may_await: true }
}

const fn synchronous(name: &'static str, may_import: &'static [&'static str], never: &'static [&'static str]) -> Layer {
    Layer { name, may_import, never, may_await: false }
}

/// The table. Data flows down; an import that is not here is a mistake in the code or a decision to write down here.
const LAYERS: &[Layer] = &[
    synchronous("job", &[], &["tokio", "sqlx", "axum", "candle_core", "reqwest"]),
    // Places where tests end the process.
    synchronous("fault", &[], &["tokio", "sqlx", "axum", "candle_core"]),
    synchronous("clock", &["job"], &["tokio", "sqlx", "axum", "candle_core"]),
    synchronous("linalg", &[], &["tokio", "sqlx", "axum"]),
    // Only the transfers from the hub wait, on a thread of their own; the front door is synchronous.
    layer("checkpoint", &["job"], &["sqlx", "axum"]),
    // Of the words it needs the projections' names only, never a job's state.
    synchronous("model", &["job", "linalg", "checkpoint"], &["tokio", "sqlx", "axum", "Status", "JobId", "JobSpec"]),
    synchronous("eval", &["job", "model", "checkpoint"], &["tokio", "sqlx", "axum"]),
    synchronous("pipeline", &["job", "linalg", "checkpoint", "model", "eval", "fault"], &["tokio", "sqlx", "axum"]),
    layer("queue", &["job", "clock", "fault"], &["candle_core", "axum"]),
    layer("artifact", &["job", "fault"], &["candle_core", "sqlx", "axum"]),
    // Spans are handed on to the child, and from a request to its job.
    layer("worker", &["job", "clock", "queue", "pipeline", "artifact", "telemetry", "fault"], &["axum", "sqlx"]),
    layer("http", &["job", "clock", "queue", "artifact", "telemetry"], &["candle_core", "sqlx"]),
    layer("cli", &["job", "http"], &["candle_core", "sqlx"]),
    layer("telemetry", &[], &["candle_core", "sqlx"]),
    layer("app", ALL, &[]),
    layer("config", ALL, &[]),
];

/// Files and folders at the top; others are tool files, which are dotfiles, or made by a build and ignored by git.
const CARD: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE",
    "Dockerfile",
    "openapi.yaml",
    "src",
    "migrations",
    "tests",
    "deploy",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    rust_files(&root().join("src")).iter().map(|path| Source::read(&root().join("src"), path)).collect()
}

fn complain(what: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{what}:\n  {}\n", problems.join("\n  "));
}

#[test]
fn every_folder_of_the_sources_is_a_layer_of_the_table() {
    let entries = fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path());
    let names: BTreeSet<String> =
        entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let known: BTreeSet<String> =
        LAYERS.iter().map(|layer| layer.name).chain(["lib", "main"]).map(str::to_owned).collect();
    let unknown: Vec<String> = names
        .difference(&known)
        .map(|name| format!("src/{name}: add it to LAYERS in tests/tidy/main.rs, with what it may import"))
        .collect();
    complain("layers without a row in the table", &unknown);
    let gone: Vec<String> = known.difference(&names).map(|name| format!("{name}: no such layer in src")).collect();
    complain("rows without a layer", &gone);
}

#[test]
fn layers_import_only_what_the_table_allows() {
    let mut problems = Vec::new();
    for source in sources() {
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == source.layer) else { continue };
        for (line, import) in source.imports(ALL) {
            if import != layer.name && !layer.may_import.contains(&import.as_str()) {
                let allowed =
                    if layer.may_import.is_empty() { "nothing".to_owned() } else { layer.may_import.join(", ") };
                problems
                    .push(format!("{}:{line}: {} imports {import}; it may import {allowed}", source.name, layer.name));
            }
        }
    }
    complain("imports against the layers' table", &problems);
}

#[test]
fn layers_never_see_what_is_not_theirs() {
    let mut problems = Vec::new();
    for source in sources() {
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == source.layer) else { continue };
        let waits: &[&str] = if layer.may_await { &[] } else { &["await"] };
        for word in layer.never.iter().chain(waits) {
            problems.extend(
                source
                    .lines_with_word(word)
                    .iter()
                    .map(|line| format!("{}:{line}: {} must never see {word}", source.name, layer.name)),
            );
        }
    }
    complain("words that do not belong to the layer", &problems);
}

#[test]
fn only_config_reads_the_environment() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.layer != "config") {
        for word in ["env", "from_env", "from_default_env", "try_from_env", "try_from_default_env"] {
            problems.extend(source.lines_with_word(word).iter().map(|line| format!("{}:{line}: {word}", source.name)));
        }
    }
    complain("the environment is read outside src/config", &problems);
}

#[test]
fn files_are_short() {
    let mut problems = Vec::new();
    for path in [root().join("src"), root().join("tests")].iter().flat_map(|folder| rust_files(folder)) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > LONGEST_FILE {
            problems.push(format!("{}: {lines} lines; at most {LONGEST_FILE}", path.display()));
        }
    }
    complain("files that should be two", &problems);
}

#[test]
fn nothing_is_left_undone_or_ignored() {
    let mut problems = Vec::new();
    for folder in ["src", "tests"].map(|folder| root().join(folder)) {
        for source in rust_files(&folder).iter().map(|path| Source::read_whole(root(), path)) {
            for mark in ["todo!", "unimplemented!", "dbg!", "#[ignore", "TODO", "FIXME"] {
                problems
                    .extend(source.lines_with_text(mark).iter().map(|line| format!("{}:{line}: {mark}", source.name)));
            }
        }
    }
    complain("work that is not finished", &problems);
}

#[test]
fn the_top_level_is_the_card() {
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    let ignored: BTreeSet<&str> = ignored.lines().map(|line| line.trim().trim_matches('/')).collect();
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let unknown = entries
        .filter(|name| !name.starts_with('.') && !CARD.contains(&name.as_str()) && !ignored.contains(name.as_str()));
    let problems: Vec<String> =
        unknown.map(|name| format!("{name}: move it below one of {}", CARD.join(", "))).collect();
    complain("entries at the top that are not on the card", &problems);
}

#[test]
fn main_is_thin() {
    let lines = fs::read_to_string(root().join("src/main.rs")).unwrap().lines().count();
    assert!(lines < 50, "src/main.rs has {lines} lines: it hands over to app and nothing else");
}

#[test]
fn the_reader_of_sources_is_not_fooled() {
    let text = "use crate::{job::{A, B}, queue, self::x};\n// use crate::http;\nlet s = \"crate::worker\"; let c = '\"';\nfn f<'a>() { crate::eval::g(); }\n";
    let source = Source::from_text(PathBuf::from("pipeline/mod.rs"), text);
    let found: Vec<(usize, String)> = source.imports(ALL);
    let expected = [(1, "job"), (1, "queue"), (4, "eval")].map(|(line, name)| (line, name.to_owned()));
    assert_eq!(found, expected);
    let inner =
        Source::from_text(PathBuf::from("pipeline/mod.rs"), "use super::{http, model::X};\nuse super::super::y;");
    assert_eq!(inner.imports(ALL).into_iter().map(|(_, name)| name).collect::<Vec<_>>(), ["http", "model"]);
    let raw =
        Source::from_text(PathBuf::from("job/id.rs"), "let a = r#\"tokio \" tokio\"#; /* tokio */ let b = tokio;");
    assert_eq!(raw.lines_with_word("tokio"), [1]);
    let words = Source::from_text(PathBuf::from("job/id.rs"), "a.env(1);\nstd::env::var(2);\nenv!(3);\nb.await;");
    assert_eq!((words.lines_with_word("env"), words.lines_with_word("await")), (vec![2], vec![4]));
    let tests =
        Source::from_text(PathBuf::from("job/id.rs"), "fn a() {}\n#[cfg(test)]\nmod tests {\n use crate::http;\n}");
    assert!(tests.imports(ALL).is_empty());
}
