//! Horizontal bars with their names and values: counts of few kinds.
//!
//! Owns: the picture. Must not: sort; whoever makes it has an order in mind.

use std::fmt::Write as _;

use super::{COLOURS, WIDTH, compact, escape, open, width_of};

/// Named bars, one or more a name.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) description: String,
    /// What a bar's length measures, with its unit.
    pub(crate) label: String,
    /// Name, and for each series its value.
    pub(crate) bars: Vec<(String, Vec<f64>)>,
    /// Names of the series; empty for one that needs none.
    pub(crate) series: Vec<String>,
}

const THICK: f64 = 17.0;
const GAP: f64 = 9.0;

impl Bars {
    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let count = self.series.len().max(1);
        let group = THICK * count as f64 + GAP;
        let legend = if self.series.len() > 1 { 22.0 } else { 0.0 };
        let height = group.mul_add(self.bars.len() as f64, legend + 34.0);
        let widest = self.bars.iter().map(|it| width_of(&it.0)).fold(40.0, f64::max);
        let left = (widest + 12.0).min(WIDTH * 0.42);
        let values = || self.bars.iter().flat_map(|it| it.1.iter().copied());
        let (least, most) = (values().fold(0.0, f64::min), values().fold(0.0, f64::max));
        let range = if most > least { most - least } else { 1.0 };
        // Values stand beside their bars and need room on the right, and on the left of negative ones.
        let room = WIDTH - left - 62.0 - if least < 0.0 { 66.0 } else { 0.0 };
        let zero = left + if least < 0.0 { 66.0 } else { 0.0 } + room * (-least / range);
        let mut out = open(&self.key, &self.title, &self.description, WIDTH, height);
        let mut x = left;
        for (number, name) in self.series.iter().enumerate().filter(|_| self.series.len() > 1) {
            let colour = number % COLOURS;
            let _ = write!(
                out,
                "<rect class=\"band c{colour}\" x=\"{x:.1}\" y=\"6\" width=\"12\" height=\"10\"/><text class=\"key\" x=\"{:.1}\" y=\"15\">{}</text>",
                x + 17.0,
                escape(name)
            );
            x += width_of(name) + 40.0;
        }
        for (row, (name, values)) in self.bars.iter().enumerate() {
            let top = group.mul_add(row as f64, legend + 4.0);
            let middle = top + (group - GAP) / 2.0;
            let _ = write!(
                out,
                "<text class=\"key\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                middle + 4.0,
                escape(name)
            );
            for (number, value) in values.iter().enumerate() {
                let length = room * value.abs() / range;
                let (start, text, anchor) = if *value < 0.0 {
                    (zero - length, zero - length - 5.0, "end")
                } else {
                    (zero, zero + length + 5.0, "start")
                };
                let y = THICK.mul_add(number as f64, top);
                let _ = writeln!(
                    out,
                    "<rect class=\"band c{}\" x=\"{start:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\"><title>{}: {}</title></rect>\
                     <text class=\"tick\" x=\"{text:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                    number % COLOURS,
                    THICK - 2.0,
                    escape(name),
                    compact(*value),
                    y + 12.0,
                    compact(*value)
                );
            }
        }
        let _ = writeln!(
            out,
            "<path class=\"axis\" d=\"M{zero:.1} {legend:.1}V{:.1}\"/><text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text></svg>",
            height - 26.0,
            f64::midpoint(left, WIDTH - 10.0),
            height - 8.0,
            escape(&self.label)
        );
        out
    }
}
