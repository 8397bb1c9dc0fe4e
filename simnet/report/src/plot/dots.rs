//! Means with their intervals, one row a group, and the single values as faint dots.
//!
//! Owns: the picture. Must not: compute an interval.

use std::fmt::Write as _;

use super::{Axis, COLOURS, WIDTH, escape, open, width_of};

/// A group's row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) mean: f64,
    pub(crate) ends: Option<(f64, f64)>,
    pub(crate) values: Vec<f64>,
    /// The mean as text.
    pub(crate) shown: String,
}

/// Rows over one axis.
#[derive(Clone, Debug)]
pub(crate) struct Dots {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) x: Axis,
    pub(crate) rows: Vec<Row>,
}

const ROW: f64 = 30.0;

impl Dots {
    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let height = ROW.mul_add(self.rows.len() as f64, 54.0);
        let name = self.rows.iter().map(|it| width_of(&it.name)).fold(30.0, f64::max);
        let shown = self.rows.iter().map(|it| width_of(&it.shown)).fold(30.0, f64::max);
        let (left, right) = ((name + 14.0).min(WIDTH * 0.4), WIDTH - shown - 16.0);
        let bottom = height - 44.0;
        let place = |value: f64| (right - left).mul_add(self.x.scale.place(value), left);
        let mut out = open(&self.key, &self.title, &self.description, WIDTH, height);
        for tick in self.x.ticks.iter().filter(|it| !it.label.is_empty()) {
            let x = place(tick.at);
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{x:.1} 4V{bottom:.1}\"/><text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                escape(&tick.label)
            );
        }
        for (number, row) in self.rows.iter().enumerate() {
            let (y, colour) = (ROW.mul_add(number as f64, 4.0 + ROW / 2.0), number % COLOURS);
            let _ = write!(
                out,
                "<text class=\"key\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 10.0,
                y + 4.0,
                escape(&row.name)
            );
            for value in &row.values {
                let _ = write!(
                    out,
                    "<circle class=\"dot c{colour}\" fill-opacity=\".28\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"2.6\"/>",
                    place(*value)
                );
            }
            if let Some((low, high)) = row.ends {
                let (x1, x2) = (place(low), place(high));
                let _ = write!(
                    out,
                    "<path class=\"interval c{colour}\" d=\"M{x1:.1} {y:.1}H{x2:.1}M{x1:.1} {:.1}v10M{x2:.1} {:.1}v10\"/>",
                    y - 5.0,
                    y - 5.0
                );
            }
            let _ = writeln!(
                out,
                "<circle class=\"dot c{colour}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.2\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                place(row.mean),
                right + 12.0,
                y + 4.0,
                escape(&row.shown)
            );
        }
        let _ = writeln!(
            out,
            "<path class=\"axis\" d=\"M{left:.1} {bottom:.1}H{right:.1}\"/><text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text></svg>",
            f64::midpoint(left, right),
            height - 8.0,
            escape(&self.x.label)
        );
        out
    }
}
