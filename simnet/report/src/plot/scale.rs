//! Scales of axes, their ticks, and numbers as people read them.
//!
//! Owns: 1-2-5 steps, decades, three significant digits. Must not: draw.

/// Where a value stands between the ends of an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// Evenly.
    Linear {
        /// The value at the beginning.
        low: f64,
        /// The value at the end.
        high: f64,
    },
    /// By the logarithm.
    Log {
        /// The value at the beginning, above zero.
        low: f64,
        /// The value at the end.
        high: f64,
    },
}

impl Scale {
    /// 0 at the beginning, 1 at the end; not beyond by more than a tenth.
    pub(crate) fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { low, high } => (value - low) / (high - low),
            Self::Log { low, high } => (value.max(low / 10.0) / low).log10() / (high / low).log10(),
        };
        if place.is_finite() { place.clamp(-0.1, 1.1) } else { 0.0 }
    }
}

/// A mark on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    pub(crate) at: f64,
    /// Empty for a small mark between others.
    pub(crate) label: String,
}

/// A step of 1, 2 or 5 times a power of ten, so that about `count` of them span the range.
fn step(range: f64, count: f64) -> f64 {
    let rough = (range / count).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    match rough / power {
        it if it <= 1.0 => power,
        it if it <= 2.0 => 2.0 * power,
        it if it <= 5.0 => 5.0 * power,
        _ => 10.0 * power,
    }
}

/// A linear scale that covers the values, and its ticks. `from_zero` when the lengths are compared.
pub(crate) fn ticks_linear(
    least: f64,
    most: f64,
    from_zero: bool,
    show: impl Fn(f64) -> String,
) -> (Scale, Vec<Tick>) {
    let least = if from_zero { least.min(0.0) } else { least };
    let most = if most > least { most } else { least + 1.0 };
    let step = step(most - least, 5.0);
    let (low, high) = ((least / step).floor() * step, (most / step - 1e-9).ceil() * step);
    let mut ticks = Vec::new();
    let mut number = 0.0;
    while low + number * step <= high + step / 2.0 && ticks.len() < 20 {
        let at = step.mul_add(number, low);
        ticks.push(Tick { at, label: show(at) });
        number += 1.0;
    }
    (Scale::Linear { low, high }, ticks)
}

/// A logarithmic scale that covers the values, at least one decade, and its ticks.
pub(crate) fn ticks_log(least: f64, most: f64, show: impl Fn(f64) -> String) -> (Scale, Vec<Tick>) {
    let least = if least > 0.0 { least } else { 1e-3 };
    let most = most.max(least * 1.01);
    // Ends at 1, 2 or 5 times a power of ten: whole decades would waste half of a plot.
    let near = |value: f64, up: bool| {
        let power = 10_f64.powf(value.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0];
        let fits = steps.iter().map(|it| it * power);
        if up {
            fits.into_iter().find(|it| *it >= value * 0.999).unwrap_or(value)
        } else {
            fits.into_iter().rev().find(|it| *it <= value * 1.001).unwrap_or(value)
        }
    };
    let (low, high) = (near(least, false), near(most, true));
    let decades = (high / low).log10();
    let mut ticks = Vec::new();
    let mut power = 10_f64.powf(low.log10().floor());
    while power <= high * 1.001 && ticks.len() < 200 {
        for digit in 1..10 {
            let at = power * f64::from(digit);
            if at < low * 0.999 || at > high * 1.001 {
                continue;
            }
            let named = digit == 1 || decades < 2.2 && (digit == 2 || digit == 5);
            ticks.push(Tick { at, label: if named { show(at) } else { String::new() } });
        }
        power *= 10.0;
    }
    (Scale::Log { low, high }, ticks)
}

/// Digits in groups of three, with a narrow space.
pub(crate) fn grouped(digits: &str) -> String {
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && digits.len() > 4 {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A number in three significant digits; large ones whole, with groups of digits; from a million on with
/// its power of ten in words of the SI.
pub(crate) fn compact(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return "–".to_owned();
    }
    let sign = if value < 0.0 { "−" } else { "" };
    let size = value.abs();
    let text = if size >= 1e6 {
        let (divisor, suffix) = match size {
            it if it >= 1e12 => (1e12, "T"),
            it if it >= 1e9 => (1e9, "G"),
            _ => (1e6, "M"),
        };
        format!("{}\u{202f}{suffix}", significant(size / divisor))
    } else if size < 1e-4 {
        scientific(size)
    } else {
        significant(size)
    };
    format!("{sign}{text}")
}

/// Two digits and a power of ten.
fn scientific(size: f64) -> String {
    let text = format!("{size:.1e}");
    let Some((digits, power)) = text.split_once('e') else { return text };
    let raised = power.chars().map(|it| match it {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => digit.to_digit(10).and_then(|it| char::from_u32(0x2070 + it)).unwrap_or(digit),
    });
    format!("{digits}×10{}", raised.collect::<String>())
}

/// Three significant digits without zeros at the end.
fn significant(size: f64) -> String {
    let places: usize = match size {
        it if it >= 99.95 => 0,
        it if it >= 9.995 => 1,
        it if it >= 0.9995 => 2,
        it if it >= 0.09995 => 3,
        it if it >= 0.009_995 => 4,
        it if it >= 0.000_999_5 => 5,
        _ => 6,
    };
    let text = format!("{size:.places$}");
    match text.split_once('.') {
        None => grouped(&text),
        Some((whole, part)) => {
            let part = part.trim_end_matches('0');
            if part.is_empty() { grouped(whole) } else { format!("{}.{part}", grouped(whole)) }
        }
    }
}

/// The unit in which a time of a run is read, and how many microseconds it is.
fn time_unit(end_us: f64) -> (&'static str, f64) {
    match end_us / 1e6 {
        it if it > 3.0 * 86_400.0 => ("days", 86_400e6),
        it if it > 3.0 * 3_600.0 => ("h", 3_600e6),
        it if it > 360.0 => ("min", 60e6),
        _ => ("s", 1e6),
    }
}

/// The axis of virtual time from the start of a run to its end; values are microseconds.
pub(crate) fn time_axis(end_us: f64) -> super::Axis {
    let (unit, per) = time_unit(end_us);
    let (_, ticks) = ticks_linear(0.0, end_us / per, true, compact);
    let ticks = ticks.into_iter().map(|it| Tick { at: it.at * per, label: it.label });
    super::Axis {
        label: format!("virtual time [{unit}]"),
        scale: Scale::Linear { low: 0.0, high: end_us.max(1.0) },
        ticks: ticks.filter(|it| it.at <= end_us * 1.0001).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let shown = [0.0, 0.012_345, 1.0, 12.34, 999.6, 12_345.0, 2_500_000.0, -3.5, 0.999, 4321.0];
        let expected = "0|0.0123|1|12.3|1000|12\u{202f}345|2.5\u{202f}M|−3.5|0.999|4321";
        assert_eq!(shown.map(compact).join("|"), expected);
    }

    #[test]
    fn ticks_cover_the_values() {
        let (scale, ticks) = ticks_linear(3.0, 97.0, true, compact);
        assert_eq!(scale, Scale::Linear { low: 0.0, high: 100.0 });
        assert_eq!(ticks.len(), 6);
        let (scale, ticks) = ticks_log(0.03, 40.0, compact);
        assert_eq!(scale, Scale::Log { low: 0.02, high: 50.0 });
        let named: Vec<_> =
            ticks.iter().filter(|it| !it.label.is_empty()).map(|it| it.at).collect();
        assert_eq!(named.len(), 3, "{named:?}");
        assert!((scale.place(1.0) - 0.5).abs() < 0.01);
    }

    #[test]
    fn nothing_to_show_is_no_fault() {
        for (least, most) in [(0.0, 0.0), (5.0, 5.0), (0.0, f64::MIN_POSITIVE)] {
            assert!(ticks_linear(least, most, true, compact).1.len() >= 2);
            assert!(!ticks_log(least, most, compact).1.is_empty());
        }
    }
}
