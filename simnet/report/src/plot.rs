//! Plots as SVG, drawn here: axes with units, few marks, no chart junk.
//!
//! Owns: scales, axes, legends, the marks of a plot, and the text that a screen reader gets.
//! Must not: know a result; `html` says what is plotted. Colours are CSS classes `c0` to `c7`, so that a page
//! chooses them for light, dark and paper; lines differ in their dashes too.

mod bars;
mod dots;
mod map;
mod scale;

pub(crate) use bars::Bars;
pub(crate) use dots::{Dots, Row as DotRow};
pub(crate) use map::{Map, Place};
pub(crate) use scale::{Scale, Tick, compact, grouped, ticks_linear, ticks_log, time_axis};

use std::fmt::Write as _;

/// Colours of the palette; the next series begins again.
pub(crate) const COLOURS: usize = 8;

/// An axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// What it measures, with its unit.
    pub(crate) label: String,
    pub(crate) scale: Scale,
    pub(crate) ticks: Vec<Tick>,
}

/// Something in a plot.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    /// A line through points; a gap where a value is missing.
    Line { label: String, colour: usize, dash: usize, points: Vec<(f64, Option<f64>)> },
    /// A line that stays until the next point: cumulative distributions.
    Steps { label: String, colour: usize, dash: usize, points: Vec<(f64, f64)> },
    /// Bars that stand on the axis: (from, until, height).
    Columns { colour: usize, bars: Vec<(f64, f64, f64)> },
    /// A thin line for comparison.
    Guide { from: (f64, f64), to: (f64, f64), label: String },
}

/// A plot with two axes.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// Its name in ids and files.
    pub(crate) key: String,
    /// What it shows.
    pub(crate) title: String,
    /// What a reader sees in it, in a sentence or two; also for those who cannot see it.
    pub(crate) description: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) marks: Vec<Mark>,
    /// Height of the whole picture; the width is always the same.
    pub(crate) height: f64,
}

/// Width of every plot in its own units, which are pixels when it is shown at full size.
pub(crate) const WIDTH: f64 = 480.0;
/// Usual height.
pub(crate) const HEIGHT: f64 = 290.0;

const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;
/// Height of a row of the legend.
const LEGEND: f64 = 19.0;

/// Text that may stand in XML.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no other control characters.
            '\n' | '\t' => out.push(letter),
            it if it.is_control() => {}
            it => out.push(it),
        }
    }
    out
}

/// About how wide a text is in the plots' type.
fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * 6.7
}

/// The opening of a picture, with what a screen reader says.
pub(crate) fn open(key: &str, title: &str, description: &str, width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-labelledby=\"{key}-title {key}-desc\"><title id=\"{key}-title\">{}</title>\
         <desc id=\"{key}-desc\">{}</desc>\n",
        escape(title),
        escape(description)
    )
}

/// The inner part of a plot, in its own units.
struct Field {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Field {
    fn x(&self, axis: &Axis, value: f64) -> f64 {
        (self.right - self.left).mul_add(axis.scale.place(value), self.left)
    }

    fn y(&self, axis: &Axis, value: f64) -> f64 {
        (self.top - self.bottom).mul_add(axis.scale.place(value), self.bottom)
    }
}

impl Plot {
    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let mut out = open(&self.key, &self.title, &self.description, WIDTH, self.height);
        let entries = self.legend();
        let rows = legend_rows(&entries);
        let legend = rows.len() as f64 * LEGEND;
        let field = Field {
            left: LEFT,
            right: WIDTH - RIGHT,
            top: TOP + legend,
            bottom: self.height - BOTTOM,
        };
        draw_legend(&mut out, &rows);
        self.axes(&mut out, &field);
        let _ = writeln!(
            out,
            "<clipPath id=\"{}-clip\"><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/></clipPath><g clip-path=\"url(#{}-clip)\">",
            self.key,
            field.left,
            field.top - 2.0,
            field.right - field.left + 2.0,
            field.bottom - field.top + 4.0,
            self.key
        );
        for mark in &self.marks {
            self.mark(&mut out, &field, mark);
        }
        out.push_str("</g></svg>\n");
        out
    }

    fn axes(&self, out: &mut String, field: &Field) {
        for tick in &self.y.ticks {
            let y = field.y(&self.y, tick.at);
            let class = if tick.label.is_empty() { "minor" } else { "grid" };
            let _ = write!(
                out,
                "<path class=\"{class}\" d=\"M{:.1} {y:.1}H{:.1}\"/>",
                field.left, field.right
            );
            if !tick.label.is_empty() {
                let _ = write!(
                    out,
                    "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    field.left - 7.0,
                    y + 4.0,
                    escape(&tick.label)
                );
            }
        }
        for tick in &self.x.ticks {
            let x = field.x(&self.x, tick.at);
            let reach = if tick.label.is_empty() { 3.0 } else { 5.0 };
            let _ = write!(out, "<path class=\"axis\" d=\"M{x:.1} {:.1}v{reach}\"/>", field.bottom);
            if !tick.label.is_empty() {
                let _ = write!(
                    out,
                    "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    field.bottom + 18.0,
                    escape(&tick.label)
                );
            }
        }
        let _ = writeln!(
            out,
            "<path class=\"axis\" d=\"M{:.1} {:.1}H{:.1}\"/>\
             <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"label\" transform=\"translate(13 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            field.left,
            field.bottom,
            field.right,
            f64::midpoint(field.left, field.right),
            self.height - 8.0,
            escape(&self.x.label),
            f64::midpoint(field.top, field.bottom),
            escape(&self.y.label)
        );
    }

    fn legend(&self) -> Vec<Entry> {
        let named = self.marks.iter().filter_map(|mark| match mark {
            Mark::Line { label, colour, dash, .. } | Mark::Steps { label, colour, dash, .. } => {
                Some((label.clone(), *colour, *dash))
            }
            Mark::Columns { .. } | Mark::Guide { .. } => None,
        });
        named.filter(|it| !it.0.is_empty()).collect()
    }

    fn mark(&self, out: &mut String, field: &Field, mark: &Mark) {
        let place = |x: f64, y: f64| (field.x(&self.x, x), field.y(&self.y, y));
        match mark {
            Mark::Line { colour, dash, points, .. } => {
                let points = points.iter().map(|it| it.1.map(|y| place(it.0, y)));
                line(out, &path(points), *colour, *dash);
            }
            Mark::Steps { colour, dash, points, .. } => {
                line(out, &steps(points.iter().map(|it| place(it.0, it.1))), *colour, *dash);
            }
            Mark::Columns { colour, bars } => {
                for (from, until, height) in bars {
                    let (left, top) = place(*from, *height);
                    let (right, _) = place(*until, 0.0);
                    let _ = write!(
                        out,
                        "<rect class=\"band c{}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                        colour % COLOURS,
                        (right - left - 0.8).max(0.6),
                        (field.bottom - top).max(0.0)
                    );
                }
                out.push('\n');
            }
            Mark::Guide { from, to, label } => {
                let ((x1, y1), (x2, y2)) = (place(from.0, from.1), place(to.0, to.1));
                let _ = writeln!(
                    out,
                    "<path class=\"guide\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>\
                     <text class=\"note\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    x1 + 4.0,
                    y1.min(y2) + 12.0,
                    escape(label)
                );
            }
        }
    }
}

fn line(out: &mut String, path: &str, colour: usize, dash: usize) {
    let (colour, dash) = (colour % COLOURS, dash % 4);
    let _ = writeln!(out, "<path class=\"line c{colour} d{dash}\" d=\"{path}\"/>");
}

/// A path through points in the picture; points that nobody could tell apart are left out.
fn path(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut out = String::new();
    let mut last: Option<(f64, f64)> = None;
    let mut skipped = None;
    for point in points {
        let Some((x, y)) = point else {
            last = None;
            continue;
        };
        match last {
            None => {
                let _ = write!(out, "M{x:.1} {y:.1}");
            }
            Some(before) if (x - before.0).abs() < 0.7 && (y - before.1).abs() < 0.7 => {
                skipped = Some((x, y));
                continue;
            }
            Some(_) => {
                let _ = write!(out, "L{x:.1} {y:.1}");
            }
        }
        skipped = None;
        last = Some((x, y));
    }
    if let Some((x, y)) = skipped {
        let _ = write!(out, "L{x:.1} {y:.1}");
    }
    out
}

fn steps(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut out = String::new();
    let mut last: Option<(f64, f64)> = None;
    for (x, y) in points {
        match last {
            None => {
                let _ = write!(out, "M{x:.1} {y:.1}");
            }
            Some(before) if (x - before.0).abs() < 0.7 && (y - before.1).abs() < 0.7 => continue,
            Some(_) => {
                let _ = write!(out, "H{x:.1}V{y:.1}");
            }
        }
        last = Some((x, y));
    }
    out
}

/// Of a legend: what it says, its colour and its dash.
type Entry = (String, usize, usize);

/// The legend in rows that fit, each entry with its place from the left.
fn legend_rows(entries: &[Entry]) -> Vec<Vec<(f64, &Entry)>> {
    let mut rows: Vec<Vec<(f64, &Entry)>> = Vec::new();
    // One series needs no legend: the plot's title says what it is.
    if entries.len() < 2 {
        return rows;
    }
    let mut at = WIDTH;
    for entry in entries {
        let wide = width_of(&entry.0) + 42.0;
        if at + wide > WIDTH && at > LEFT {
            rows.push(Vec::new());
            at = LEFT;
        }
        if let Some(row) = rows.last_mut() {
            row.push((at, entry));
        }
        at += wide;
    }
    rows
}

fn draw_legend(out: &mut String, rows: &[Vec<(f64, &Entry)>]) {
    let mut y = 11.0;
    for row in rows {
        for (x, (label, colour, dash)) in row {
            let colour = colour % COLOURS;
            let _ = write!(
                out,
                "<path class=\"line c{colour} d{}\" d=\"M{x:.1} {y:.1}h22\"/>",
                dash % 4
            );
            let _ = write!(
                out,
                "<text class=\"key\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 27.0,
                y + 4.0,
                escape(label)
            );
        }
        y += LEGEND;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(escape("<script a='b'>&\u{0}"), "&lt;script a=&#39;b&#39;&gt;&amp;");
    }

    #[test]
    fn a_gap_breaks_the_line_and_close_points_are_left_out() {
        let points =
            [Some((0.0, 0.0)), Some((0.1, 0.1)), Some((9.0, 9.0)), None, Some((20.0, 1.0))];
        assert_eq!(path(points.into_iter()), "M0.0 0.0L9.0 9.0M20.0 1.0");
    }
}
