//! The network on a map: regions as circles, flows between them as arcs.
//!
//! Owns: an equirectangular map, and labels that do not cover each other. Must not: know what flows.

mod land;

use std::fmt::Write as _;

use super::{compact, escape, open, width_of};

/// A region on the map.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    /// What its circle's area shows.
    pub(crate) size: f64,
    /// What a pointer that rests on it is told.
    pub(crate) note: String,
}

/// Regions and what flows between them.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) places: Vec<Place>,
    /// From a place, to a place, how much.
    pub(crate) flows: Vec<(usize, usize, f64)>,
}

const WIDE: f64 = 960.0;
const HIGH: f64 = 400.0;
/// Degrees shown: all around, from 72° north to 56° south.
const NORTH: f64 = 74.0;
const PER_DEGREE: f64 = WIDE / 352.0;
const WEST: f64 = -170.0;

fn spot(latitude: f64, longitude: f64) -> (f64, f64) {
    (
        (longitude - WEST) * PER_DEGREE,
        ((NORTH - latitude) * PER_DEGREE * 1.12).clamp(6.0, HIGH - 6.0),
    )
}

impl Map {
    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let out = open(&self.key, &self.title, &self.description, WIDE, HIGH);
        let mut out = out.replacen("class=\"plot\"", "class=\"plot map\"", 1);
        let _ = writeln!(
            out,
            "<clipPath id=\"{0}-clip\"><rect width=\"{WIDE}\" height=\"{HIGH}\"/></clipPath><g clip-path=\"url(#{0}-clip)\">\
             <path class=\"land\" transform=\"translate({1:.1} {2:.1}) scale({3:.4} {4:.4})\" d=\"{5}\"/></g>",
            self.key,
            -WEST * PER_DEGREE,
            NORTH * PER_DEGREE * 1.12,
            PER_DEGREE,
            PER_DEGREE * 1.12,
            land::LAND
        );
        self.draw_flows(&mut out);
        self.draw_places(&mut out);
        out.push_str("</svg>\n");
        out
    }

    fn draw_flows(&self, out: &mut String) {
        let most = self.flows.iter().map(|it| it.2).fold(0.0, f64::max);
        let mut flows: Vec<_> = self.flows.iter().filter(|it| it.0 != it.1 && it.2 > 0.0).collect();
        flows.sort_by(|one, two| one.2.total_cmp(&two.2));
        for (from, to, amount) in flows {
            let (Some(start), Some(end)) = (self.places.get(*from), self.places.get(*to)) else {
                continue;
            };
            let (x1, y1) = spot(start.latitude, start.longitude);
            let (x2, y2) = spot(end.latitude, end.longitude);
            // An arc that bends to the left of its way, so that the two directions part.
            let (middle_x, middle_y) = (f64::midpoint(x1, x2), f64::midpoint(y1, y2));
            let (across_x, across_y) = ((y2 - y1) * 0.18, (x1 - x2) * 0.18);
            let share = amount / most;
            let _ = writeln!(
                out,
                "<path class=\"flow\" d=\"M{x1:.1} {y1:.1}Q{:.1} {:.1} {x2:.1} {y2:.1}\" stroke-width=\"{:.2}\" stroke-opacity=\"{:.2}\"><title>{} → {}: {}</title></path>",
                middle_x + across_x,
                middle_y + across_y,
                share.sqrt().mul_add(7.0, 0.4),
                share.sqrt().mul_add(0.5, 0.12),
                escape(&start.name),
                escape(&end.name),
                compact(*amount)
            );
        }
    }

    fn draw_places(&self, out: &mut String) {
        let most = self.places.iter().map(|it| it.size).fold(1.0, f64::max);
        // Boxes that are taken, as left, top, right, bottom: labels keep off them.
        let mut taken: Vec<(f64, f64, f64, f64)> = Vec::new();
        let mut circles = Vec::new();
        for place in &self.places {
            let (x, y) = spot(place.latitude, place.longitude);
            let radius = (place.size / most).sqrt().mul_add(15.0, 2.5);
            taken.push((x - radius, y - radius, x + radius, y + radius));
            circles.push((x, y, radius));
            let _ = write!(
                out,
                "<circle class=\"place\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"><title>{}: {}</title></circle>",
                escape(&place.name),
                escape(&place.note)
            );
        }
        for (place, (x, y, radius)) in self.places.iter().zip(circles) {
            let wide = width_of(&place.name);
            let options = [
                (x + radius + 4.0, y + 4.0),
                (x - radius - 4.0 - wide, y + 4.0),
                (x - wide / 2.0, y + radius + 14.0),
                (x - wide / 2.0, y - radius - 5.0),
                (x + radius * 0.8, y + radius + 12.0),
                (x + radius * 0.8, y - radius - 3.0),
            ];
            let area = |(left, base): (f64, f64)| (left, base - 11.0, left + wide, base + 3.0);
            let free = |option: (f64, f64)| {
                let (left, top, right, bottom) = area(option);
                left > 2.0
                    && right < WIDE - 2.0
                    && top > 0.0
                    && bottom < HIGH
                    && taken
                        .iter()
                        .all(|it| right < it.0 || left > it.2 || bottom < it.1 || top > it.3)
            };
            let at = options.into_iter().find(|it| free(*it)).unwrap_or(options[0]);
            taken.push(area(at));
            let _ = writeln!(
                out,
                "<text class=\"key halo\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                at.0,
                at.1,
                escape(&place.name)
            );
        }
    }
}
