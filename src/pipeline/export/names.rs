use crate::model::module_name;

/// The name with its layer's new index; `None` for what belongs to a removed layer (`removed` is ascending).
pub(super) fn renumbered(name: &str, removed: &[usize]) -> Option<String> {
    let Some((index, rest)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
        return Some(name.to_owned());
    };
    let Ok(index) = index.parse::<usize>() else { return Some(name.to_owned()) };
    if removed.contains(&index) {
        return None;
    }
    Some(module_name(index - removed.iter().filter(|&&gone| gone < index).count(), rest))
}
