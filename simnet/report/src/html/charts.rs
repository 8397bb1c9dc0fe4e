//! Which plots a run gets, and what each says.
//!
//! Owns: the choice of plots, their axes and captions. Must not: draw; a plot that has nothing to show is left out.

mod money;

use super::{Picture, Section, table};
use crate::histogram::Histogram;
use crate::plot::{
    Axis, Bars, HEIGHT, Map, Mark, Place, Plot, compact, escape, ticks_linear, ticks_log, time_axis,
};
use crate::results::{Point, Results};

/// All plots, in the order of the page.
pub(super) fn sections(results: &Results) -> Vec<Section> {
    let some = |title: &str, pictures: Vec<Option<Picture>>, more: String| Section {
        title: title.to_owned(),
        intro: String::new(),
        pictures: pictures.into_iter().flatten().collect(),
        more,
    };
    let mut all = vec![
        some("Latency", vec![latency(results), latency_over_time(results)], String::new()),
        some(
            "Jobs",
            vec![success(results), throughput(results), running(results), failures(results)],
            tiers(results),
        ),
        some(
            "Money",
            vec![
                money::prices(results),
                money::price_over_time(results),
                money::lorenz(results),
                money::incomes(results),
            ],
            String::new(),
        ),
        some(
            "Network",
            vec![
                discovery(results),
                traffic(results),
                hosts(results),
                connections(results),
                topology(results),
            ],
            String::new(),
        ),
        some("Adversaries", vec![adversaries(results)], adversary_table(results)),
    ];
    all.retain(|it| !it.pictures.is_empty() || !it.more.is_empty());
    all
}

pub(crate) fn picture(plot: &Plot) -> Picture {
    Picture {
        key: plot.key.clone(),
        title: plot.title.clone(),
        caption: plot.description.clone(),
        svg: plot.svg(),
        wide: false,
    }
}

const fn real(value: u64) -> f64 {
    value as f64
}

fn share_axis(label: &str, low: f64) -> Axis {
    let (scale, ticks) = ticks_linear(low, 1.0, false, |it| format!("{} %", compact(it * 100.0)));
    Axis { label: label.to_owned(), scale, ticks }
}

fn count_axis(label: &str, most: f64) -> Axis {
    let (scale, ticks) = ticks_linear(0.0, most, true, compact);
    Axis { label: label.to_owned(), scale, ticks }
}

/// Cumulative distributions over a logarithmic axis; `per` makes the histograms' values the axis's unit.
pub(crate) fn distributions(
    key: &str,
    title: &str,
    description: String,
    label: &str,
    per: f64,
    curves: &[(String, &Histogram)],
) -> Option<Plot> {
    let filled: Vec<_> = curves.iter().filter(|it| it.1.count() > 0).collect();
    let most = filled.iter().filter_map(|it| it.1.most()).max()?;
    // The lowest thousandth is left of the axis: a single lucky value would take a third of the plot.
    let least = filled.iter().filter_map(|it| it.1.quantile(1)).min()?;
    let (scale, ticks) = ticks_log(real(least.max(1)) / per, real(most) / per, compact);
    let marks = filled.iter().enumerate().map(|(number, (name, histogram))| {
        let cumulative = histogram.cumulative().into_iter();
        let mut points = vec![(real(histogram.least().unwrap_or(0)) / per, 0.0)];
        points.extend(cumulative.map(|it| (real(it.0) / per, it.1)));
        Mark::Steps { label: name.clone(), colour: number, dash: number, points }
    });
    Some(Plot {
        key: key.to_owned(),
        title: title.to_owned(),
        description,
        x: Axis { label: label.to_owned(), scale, ticks },
        y: share_axis("share within that time", 0.0),
        marks: marks.collect(),
        height: HEIGHT,
    })
}

/// "median 0.8 s, 99 % within 2.7 s".
pub(crate) fn in_short(name: &str, histogram: &Histogram) -> Option<String> {
    let at = |per_mille| Some(compact(real(histogram.quantile(per_mille)?) / 1e6));
    Some(format!("{name}: median {} s, 99 % within {} s", at(500)?, at(990)?))
}

fn latency(results: &Results) -> Option<Picture> {
    let curves = &results.curves;
    let parts = [("First token", &curves.first_token_us), ("whole job", &curves.duration_us)];
    let said: Vec<_> = parts.iter().filter_map(|it| in_short(it.0, it.1)).collect();
    let plot = distributions(
        "latency",
        "Time to the first token and to the receipt",
        format!("{}. Jobs of honest consumers; failed jobs have no receipt.", said.join("; ")),
        "time since submission [s], logarithmic",
        1e6,
        &parts.map(|it| (it.0.to_lowercase(), it.1)),
    )?;
    Some(picture(&plot))
}

fn discovery(results: &Results) -> Option<Picture> {
    let curves = &results.curves;
    let parts =
        [("Route ready", &curves.route_ready_us), ("session open", &curves.session_open_us)];
    let said: Vec<_> = parts.iter().filter_map(|it| in_short(it.0, it.1)).collect();
    let plot = distributions(
        "discovery",
        "Discovery and session set-up",
        format!(
            "{}. Route ready: from wanting a model to its first offer. Session open: from dial to accepted evidence.",
            said.join("; ")
        ),
        "time [s], logarithmic",
        1e6,
        &parts.map(|it| (it.0.to_lowercase(), it.1)),
    )?;
    Some(picture(&plot))
}

/// The points with the time that each covers, in seconds.
fn spans(results: &Results) -> impl Iterator<Item = (&Point, f64)> {
    let points = &results.curves.timeline.points;
    let starts = std::iter::once(0).chain(points.iter().map(|it| it.at_us));
    points.iter().zip(starts).map(|(it, start)| (it, real(it.at_us.saturating_sub(start)) / 1e6))
}

struct Series<'a> {
    label: &'a str,
    of: &'a dyn Fn(&Point, f64) -> Option<f64>,
}

/// Lines over the run's time.
fn over_time(
    results: &Results,
    key: &str,
    title: &str,
    description: String,
    axis: impl FnOnce(f64, f64) -> Axis,
    series: &[Series<'_>],
) -> Option<Plot> {
    let values: Vec<Vec<(f64, Option<f64>)>> = series
        .iter()
        .map(|it| spans(results).map(|(p, span)| (real(p.at_us), (it.of)(p, span))).collect())
        .collect();
    let present = || values.iter().flatten().filter_map(|it| it.1);
    // A line needs two points.
    if present().count() < 2 {
        return None;
    }
    let (least, most) = (present().fold(f64::INFINITY, f64::min), present().fold(0.0, f64::max));
    let marks = series.iter().zip(values).enumerate().map(|(number, (it, points))| Mark::Line {
        label: it.label.to_owned(),
        colour: number,
        dash: number,
        points,
    });
    Some(Plot {
        key: key.to_owned(),
        title: title.to_owned(),
        description,
        x: time_axis(real(results.ending.at_us)),
        y: axis(least, most),
        marks: marks.collect(),
        height: HEIGHT,
    })
}

fn rate(count: u64, span: f64) -> Option<f64> {
    (span > 0.0).then(|| real(count) / span)
}

fn latency_over_time(results: &Results) -> Option<Picture> {
    let seconds = |it: Option<u64>| it.map(|it| real(it) / 1e6);
    let plot = over_time(
        results,
        "latency-over-time",
        "First token over time",
        "Median and 99 % quantile of the first tokens of each interval; a gap where there was none.".into(),
        |least, most| {
            let (scale, ticks) = ticks_log(least, most, compact);
            Axis { label: "time to first token [s], logarithmic".into(), scale, ticks }
        },
        &[
            Series { label: "median", of: &|it, _| seconds(it.first_token_p50_us) },
            Series { label: "99 % quantile", of: &|it, _| seconds(it.first_token_p99_us) },
        ],
    )?;
    Some(picture(&plot))
}

fn success(results: &Results) -> Option<Picture> {
    let of = |it: &Point, _: f64| {
        let ended = it.finished + it.failed;
        (ended > 0).then(|| real(it.finished) / real(ended))
    };
    let jobs = &results.summary.jobs;
    let plot = over_time(
        results,
        "success",
        "Success over time",
        format!(
            "Share of jobs that finished, of those that ended in each interval. After warm-up: {} finished, {} failed, {} not ended. Mind where the axis begins.",
            compact(real(jobs.finished)),
            compact(real(jobs.failed)),
            compact(real(jobs.unfinished))
        ),
        |least, _| share_axis("jobs finished of those ended", (least - 0.02).clamp(0.0, 0.9)),
        &[Series { label: "", of: &of }],
    )?;
    Some(picture(&plot))
}

fn throughput(results: &Results) -> Option<Picture> {
    let plot = over_time(
        results,
        "throughput",
        "Throughput",
        "Jobs submitted, finished and failed a second.".into(),
        |_, most| count_axis("jobs a second", most),
        &[
            Series { label: "submitted", of: &|it, span| rate(it.submitted, span) },
            Series { label: "finished", of: &|it, span| rate(it.finished, span) },
            Series { label: "failed", of: &|it, span| rate(it.failed, span) },
        ],
    )?;
    Some(picture(&plot))
}

fn running(results: &Results) -> Option<Picture> {
    let plot = over_time(
        results,
        "running",
        "Jobs under way",
        "Jobs that have neither finished nor failed, at the end of each interval.".into(),
        |_, most| count_axis("jobs", most),
        &[Series { label: "", of: &|it, _| Some(real(it.running)) }],
    )?;
    Some(picture(&plot))
}

fn hosts(results: &Results) -> Option<Picture> {
    let plot = over_time(
        results,
        "hosts",
        "Hosts that run",
        format!("{} processes died in the run.", compact(real(results.summary.crashes))),
        |_, most| count_axis("hosts", most),
        &[Series { label: "", of: &|it, _| Some(f64::from(it.hosts)) }],
    )?;
    Some(picture(&plot))
}

fn connections(results: &Results) -> Option<Picture> {
    let plot = over_time(
        results,
        "connections",
        "Connections",
        "Open connections, each counted once.".into(),
        |_, most| count_axis("connections", most),
        &[Series { label: "", of: &|it, _| (it.connections > 0).then(|| real(it.connections)) }],
    )?;
    Some(picture(&plot))
}

/// The failures as bars, most frequent first.
fn failures(results: &Results) -> Option<Picture> {
    let mut kinds: Vec<_> = results.summary.jobs.failures.iter().collect();
    kinds.sort_by_key(|it| (std::cmp::Reverse(*it.1), it.0));
    if kinds.is_empty() {
        return None;
    }
    let bars = Bars {
        key: "failures".into(),
        title: "Why jobs failed".into(),
        description: "Failed jobs of honest consumers by the kind of failure that their user saw."
            .into(),
        label: "jobs".into(),
        bars: kinds.into_iter().map(|it| (it.0.clone(), vec![real(*it.1)])).collect(),
        series: Vec::new(),
    };
    Some(bars_picture(&bars))
}

fn bars_picture(bars: &Bars) -> Picture {
    Picture {
        key: bars.key.clone(),
        title: bars.title.clone(),
        caption: bars.description.clone(),
        svg: bars.svg(),
        wide: false,
    }
}

fn tiers(results: &Results) -> String {
    let tiers = &results.summary.jobs.tiers;
    if tiers.len() < 2 {
        return String::new();
    }
    let rows = tiers.iter().map(|(tier, it)| {
        let ended = it.finished + it.failed;
        let share =
            if ended == 0 { "–".into() } else { percent(real(it.finished) / real(ended)) };
        let count = |it: u64| compact(real(it));
        vec![escape(tier), count(it.submitted), count(it.finished), count(it.failed), share]
    });
    let head = ["lowest tier asked", "submitted", "finished", "failed", "success"];
    table(&head, &rows.collect::<Vec<_>>(), &[1, 2, 3, 4])
}

fn percent(share: f64) -> String {
    format!("{:.2}\u{202f}%", share * 100.0)
}

/// Protocols that get a colour of their own; the rest is joined.
const PROTOCOLS: usize = 6;

fn traffic(results: &Results) -> Option<Picture> {
    let mut totals: Vec<_> = results.summary.traffic_bytes.iter().filter(|it| *it.1 > 0).collect();
    totals.sort_by_key(|it| (std::cmp::Reverse(*it.1), it.0));
    let (own, rest) = totals.split_at(totals.len().min(PROTOCOLS));
    let sum: u64 = totals.iter().map(|it| it.1).sum();
    let mut marks = Vec::new();
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    let mut line = |label: &str, colour: usize, of: &dyn Fn(&Point) -> u64| {
        let rate = |(point, span): (&Point, f64)| {
            let rate = rate(of(point), span).filter(|it| *it > 0.0).map(|it| it / 1e3);
            if let Some(rate) = rate {
                (least, most) = (least.min(rate), most.max(rate));
            }
            (real(point.at_us), rate)
        };
        let points = spans(results).map(rate).collect();
        marks.push(Mark::Line { label: label.to_owned(), colour, dash: colour, points });
    };
    for (number, (protocol, total)) in own.iter().enumerate() {
        let share = compact(real(**total) * 100.0 / real(sum.max(1)));
        line(&format!("{protocol} {share} %"), number, &|it| {
            it.bytes.get(*protocol).copied().unwrap_or(0)
        });
    }
    if !rest.is_empty() {
        line("others", 7, &|it| {
            rest.iter().map(|(name, _)| it.bytes.get(*name).copied().unwrap_or(0)).sum()
        });
    }
    if most <= 0.0 || results.curves.timeline.points.len() < 2 {
        return None;
    }
    let (scale, ticks) = ticks_log(least.max(most / 1e5), most, compact);
    let plot = Plot {
        key: "traffic".into(),
        title: "Traffic by protocol".into(),
        description: format!(
            "Sent a second by the whole network, {} in all; beside each protocol its share of that.",
            bytes(real(sum))
        ),
        x: time_axis(real(results.ending.at_us)),
        y: Axis { label: "kB a second, logarithmic".into(), scale, ticks },
        marks,
        height: HEIGHT + 10.0,
    };
    Some(picture(&plot))
}

fn bytes(count: f64) -> String {
    match count {
        it if it >= 1e9 => format!("{} GB", compact(it / 1e9)),
        it if it >= 1e6 => format!("{} MB", compact(it / 1e6)),
        it => format!("{} kB", compact(it / 1e3)),
    }
}

/// Arcs of the map.
const ARCS: usize = 40;

fn topology(results: &Results) -> Option<Picture> {
    let regions = &results.summary.population.regions;
    if regions.is_empty() {
        return None;
    }
    // Regions that are nowhere, as in measured tables of single hosts, have no map.
    if regions.iter().any(|it| it.region.latitude.is_none()) {
        return None;
    }
    let places = regions.iter().map(|it| Place {
        name: it.region.name.clone(),
        latitude: it.region.latitude.unwrap_or(0.0),
        longitude: it.region.longitude.unwrap_or(0.0),
        size: real(it.providers + it.consumers),
        note: format!("{} providers, {} consumers", it.providers, it.consumers),
    });
    let mut flows = Vec::new();
    let (mut inside, mut all) = (0, 0);
    for (from, row) in results.curves.flows.iter().enumerate() {
        for (to, jobs) in row.iter().enumerate() {
            all += jobs;
            if from == to {
                inside += jobs;
            }
            flows.push((from, to, real(*jobs)));
        }
    }
    // With twelve regions there are 132 ways; the thin ones only hide the others.
    flows.retain(|it| it.0 != it.1);
    flows.sort_by(|one, two| two.2.total_cmp(&one.2));
    flows.truncate(ARCS);
    let within = if all == 0 {
        String::new()
    } else {
        format!(" {} of all jobs stayed in their region.", percent(real(inside) / real(all)))
    };
    let map = Map {
        key: "topology".into(),
        title: "Where jobs went".into(),
        description: format!(
            "A circle's area is the number of hosts in a region; an arc's width is the number of finished jobs from consumers to providers of another region, for the {ARCS} busiest ways.{within}"
        ),
        places: places.collect(),
        flows,
    };
    Some(Picture {
        key: map.key.clone(),
        title: map.title.clone(),
        caption: map.description.clone(),
        svg: map.svg(),
        wide: true,
    })
}

fn adversaries(results: &Results) -> Option<Picture> {
    let kinds = &results.summary.adversaries;
    if kinds.is_empty() {
        return None;
    }
    let bars = Bars {
        key: "adversaries".into(),
        title: "Gain and damage".into(),
        description: "Gain: income beyond what the same engine time earns an honest provider, and what was served to them unpaid. Damage: what honest consumers had promised for jobs that they lost to them, and what honest providers served them unpaid.".into(),
        label: "TON, all adversaries of a behaviour together".into(),
        bars: kinds
            .iter()
            .map(|it| (it.behaviour.clone(), vec![it.gain_nanoton / 1e9, it.damage_nanoton / 1e9]))
            .collect(),
        series: vec!["gain".into(), "damage".into()],
    };
    Some(bars_picture(&bars))
}

fn adversary_table(results: &Results) -> String {
    let kinds = &results.summary.adversaries;
    if kinds.is_empty() {
        return String::new();
    }
    let rows = kinds.iter().map(|it| {
        let count = |it: u64| compact(real(it));
        vec![
            escape(&it.behaviour),
            count(it.hosts),
            count(it.prompts_received),
            count(it.jobs_served),
            count(it.jobs_lost),
            compact(real(it.income_nanoton) / 1e9),
            compact(it.gain_nanoton / 1e9),
            compact(it.damage_nanoton / 1e9),
        ]
    });
    let head = [
        "behaviour",
        "hosts",
        "prompts received",
        "jobs served",
        "jobs lost",
        "income [TON]",
        "gain [TON]",
        "damage [TON]",
    ];
    table(&head, &rows.collect::<Vec<_>>(), &[1, 2, 3, 4, 5, 6, 7])
}
