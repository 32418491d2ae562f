//! The files of the page, inside the binary. `uplot-*` is uPlot, as released (MIT, see `uplot.LICENSE`).

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::artifact::hexadecimal;

/// The file that `/` shows.
pub(super) const INDEX: &str = "index.html";

/// A file of the page.
pub(super) struct Asset {
    name: &'static str,
    pub(super) kind: &'static str,
    pub(super) content: &'static str,
    /// Its entity tag.
    pub(super) tag: String,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    const STYLE: &str = "text/css; charset=utf-8";
    let files = [
        (INDEX, "text/html; charset=utf-8", include_str!("index.html")),
        ("page.css", STYLE, include_str!("page.css")),
        ("page.js", SCRIPT, include_str!("page.js")),
        ("api.js", SCRIPT, include_str!("api.js")),
        ("form.js", SCRIPT, include_str!("form.js")),
        ("job.js", SCRIPT, include_str!("job.js")),
        ("plots.js", SCRIPT, include_str!("plots.js")),
        ("uplot-1.6.32.min.js", SCRIPT, include_str!("uplot-1.6.32.min.js")),
        ("uplot-1.6.32.min.css", STYLE, include_str!("uplot-1.6.32.min.css")),
        ("uplot.LICENSE", "text/plain; charset=utf-8", include_str!("uplot.LICENSE")),
    ];
    let asset = |(name, kind, content): (&'static str, &'static str, &'static str)| Asset {
        name,
        kind,
        content,
        tag: format!("\"{}\"", hexadecimal(&Sha256::digest(content)[..16])),
    };
    files.into_iter().map(asset).collect()
});

/// The file of that name.
pub(super) fn asset(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}
