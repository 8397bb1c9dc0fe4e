//! The page around plots and tables: header, tiles, sections, style.
//!
//! Owns: markup and style. Must not: know what is shown.

use std::fmt::Write as _;

use crate::plot::escape;

/// A plot with its name.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) key: String,
    pub(crate) title: String,
    /// What a reader sees in it.
    pub(crate) caption: String,
    pub(crate) svg: String,
    /// Whether it takes the page's whole width.
    pub(crate) wide: bool,
}

/// Plots that belong together, and markup below them.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    /// A sentence that goes for all of its plots; may be empty.
    pub(crate) intro: String,
    pub(crate) pictures: Vec<Picture>,
    pub(crate) more: String,
}

/// A figure at the top.
#[derive(Clone, Debug)]
pub(crate) struct Tile {
    pub(crate) label: String,
    pub(crate) value: String,
    pub(crate) unit: String,
}

const STYLE: &str = include_str!("style.css");
const PLOT_STYLE: &str = include_str!("plot.css");

/// A picture that carries its own style, for a paper.
pub(crate) fn standalone(svg: &str) -> String {
    let light = "svg{--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--faint:#eaeef2;--land:#e9edf1;--page:#fff;\
                 --c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#e69f00;--c5:#56b4e9;--c6:#6b5b95;--c7:#7f7f7f;\
                 font-family:system-ui,sans-serif}";
    match svg.split_once('>') {
        Some((head, rest)) => format!("{head}><style>{light}{PLOT_STYLE}</style>{rest}"),
        None => svg.to_owned(),
    }
}

/// A table; cells are markup. Columns in `numbers` stand on the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>], numbers: &[usize]) -> String {
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    let class = |column: usize| if numbers.contains(&column) { " class=\"n\"" } else { "" };
    for (column, name) in head.iter().enumerate() {
        let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(column), escape(name));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{cell}</td>", class(column));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// The whole page.
pub(crate) fn page(
    title: &str,
    kicker: &str,
    facts: &[(String, String)],
    warnings: &[String],
    tiles: &[Tile],
    sections: &[Section],
) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <link rel=\"icon\" href=\"data:,\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\
         <title>{0} · simnet</title><style>\n{STYLE}{PLOT_STYLE}</style></head><body><main>\n\
         <header><p class=\"kicker\">{1}</p><h1>{0}</h1><dl class=\"facts\">",
        escape(title),
        escape(kicker)
    );
    for (name, value) in facts {
        let _ = write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    }
    out.push_str("</dl></header>\n");
    for warning in warnings {
        let _ = writeln!(out, "<p class=\"warning\" role=\"note\">{}</p>", escape(warning));
    }
    if !tiles.is_empty() {
        out.push_str("<ul class=\"tiles\">\n");
        for tile in tiles {
            let _ = writeln!(
                out,
                "<li><span class=\"what\">{}</span><span class=\"value\">{}<small>{}</small></span></li>",
                escape(&tile.label),
                escape(&tile.value),
                if tile.unit.is_empty() {
                    String::new()
                } else {
                    format!(" {}", escape(&tile.unit))
                }
            );
        }
        out.push_str("</ul>\n");
    }
    for section in sections {
        let _ = writeln!(out, "<section><h2>{}</h2>", escape(&section.title));
        if !section.intro.is_empty() {
            let _ = writeln!(out, "<p class=\"intro\">{}</p>", escape(&section.intro));
        }
        if !section.pictures.is_empty() {
            out.push_str("<div class=\"pictures\">\n");
            for picture in &section.pictures {
                let _ = writeln!(
                    out,
                    "<figure{}><h3>{}</h3>{}{}</figure>",
                    if picture.wide { " class=\"wide\"" } else { "" },
                    escape(&picture.title),
                    picture.svg,
                    if picture.caption.is_empty() {
                        String::new()
                    } else {
                        format!("<figcaption>{}</figcaption>", escape(&picture.caption))
                    }
                );
            }
            out.push_str("</div>\n");
        }
        out.push_str(&section.more);
        out.push_str("</section>\n");
    }
    out.push_str("</main></body></html>\n");
    out
}
