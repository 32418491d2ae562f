//! The pages of a text that is scored page by page.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{find_local, load_local_records, load_records, records, records::Format};
use crate::{
    checkpoint::{Error, HubSettings},
    job::{DatasetName, RollingTask},
};

/// A record of the hub's copy by pages.
#[derive(Deserialize)]
struct Record {
    page: String,
}

/// Hands every page of a split to `take`, in order: records with a `page` of the task's own name, local ones first; else
/// a local file with the whole text of `WikiText-2`, cut at its titles; else the hub.
///
/// # Errors
/// As [`load_records`].
pub(in crate::eval) fn load_pages(
    task: RollingTask,
    split: &str,
    datasets_dir: &Path,
    hub: &HubSettings,
    take: &mut dyn FnMut(String),
) -> Result<(), Error> {
    let mut read = |record: Value| {
        let record: Record = serde_json::from_value(record).map_err(|error| format!("is no page: {error}"))?;
        take(record.page);
        Ok(())
    };
    if load_local_records(task.into(), split, datasets_dir, &mut read)? {
        return Ok(());
    }
    // Records would have lost where their lines ended.
    let whole = find_local(&DatasetName::Wikitext2, split, datasets_dir)?.filter(|found| found.format == Format::Text);
    if let Some(found) = whole {
        pages(&records::read(&found.path, found.format)?).into_iter().for_each(take);
        return Ok(());
    }
    load_records(task.into(), split, datasets_dir, hub, &mut read).map(|_| ())
}

/// Cuts a text of Wikipedia articles before every title of the first level, ` = Title = `.
fn pages(text: &str) -> Vec<String> {
    let mut pages = vec![Vec::new()];
    for line in text.split('\n') {
        if is_title(line) {
            pages.push(Vec::new());
        }
        if let Some(page) = pages.last_mut() {
            page.push(line);
        }
    }
    let joined = pages.into_iter().map(|lines| lines.join("\n"));
    joined.filter(|page| !page.trim().is_empty()).collect()
}

/// Whether it is a title of the first level; a formula may begin and end with the sign too, without being one.
fn is_title(line: &str) -> bool {
    let line = line.replace("= = =", "===").replace("= =", "==");
    let line = line.trim();
    line.starts_with("= ") && line.ends_with(" =")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_begin_with_titles_of_the_first_level() {
        let text = " \n = One = \n \n Text . \n = = Part = = \n more \n = Two = \n \n = = = Small = = = \n";
        assert_eq!(
            pages(text),
            [" = One = \n \n Text . \n = = Part = = \n more ", " = Two = \n \n = = = Small = = = \n"]
        );
    }
}
