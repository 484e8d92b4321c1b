//! Pictures: latency over time with the phases shaded, and percentile curves of all subjects side by side. SVG.

use std::time::Duration;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::{Report, SubjectReport};
use super::round::Round;
use super::subject::Failure;

const SIZE: (u32, u32) = (1100, 520);

/// Colours that can be told apart, also by those who see few (Okabe and Ito, *Color universal design*, 2008), then once more
/// darker.
const COLOURS: [RGBColor; 14] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(90, 90, 90),
    RGBColor(0, 60, 100),
    RGBColor(140, 95, 0),
    RGBColor(0, 90, 65),
    RGBColor(120, 60, 100),
    RGBColor(40, 100, 140),
    RGBColor(130, 50, 0),
    RGBColor(170, 170, 0),
];

/// The shades of the phases.
const SHADES: [RGBColor; 2] = [RGBColor(238, 238, 238), RGBColor(215, 226, 240)];

/// The quantiles of a percentile curve: one minus these.
const TAIL_MIN: f64 = 1e-5;

fn failed(e: impl std::fmt::Display) -> Failure {
    Failure::Setting(format!("the picture cannot be drawn: {e}"))
}

/// Latency over time of one subject in one round: p50, p99 and the longest of each 100 ms, the phases shaded.
///
/// # Errors
///
/// A round without a time series.
pub fn over_time(subject: &SubjectReport, round: &Round) -> Result<String, Failure> {
    let mut svg = String::new();
    draw_over_time(subject, round, SVGBackend::with_string(&mut svg, SIZE).into_drawing_area())?;
    Ok(svg)
}

fn draw_over_time(
    subject: &SubjectReport,
    round: &Round,
    area: DrawingArea<SVGBackend<'_>, Shift>,
) -> Result<(), Failure> {
    let end_ms = round.series.last().map(|point| point.at_ms + 100);
    let end = end_ms.ok_or_else(|| failed("the round has no time series"))? as f64 / 1e3;
    let begin = round.series.first().map_or(0.0, |point| point.at_ms as f64 / 1e3);
    let top = round.series.iter().map(|point| point.max_ns).max().unwrap_or(1) as f64 / 1e6;
    let (bottom, top) = (0.005, (top * 3.0).max(1.0));
    area.fill(&WHITE).map_err(failed)?;
    let caption = format!("{}, round {}: latency from when an operation was due", subject.name, round.round);
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(begin..end, (bottom..top).log_scale())
        .map_err(failed)?;
    for (n, phase) in round.phases.iter().enumerate() {
        let (from, to) = (phase.began_us as f64 / 1e6, phase.ended_us as f64 / 1e6);
        let shade = SHADES.get(n % 2).copied().unwrap_or(WHITE);
        let shaded = Rectangle::new([(from.max(begin), bottom), (to.min(end), top)], shade.filled());
        chart.draw_series([shaded]).map_err(failed)?;
    }
    let mesh = chart.configure_mesh().disable_x_mesh().x_desc("seconds").y_desc("ms").draw();
    mesh.map_err(failed)?;
    for (name, colour, value) in [
        ("longest", RGBColor(213, 94, 0), (|p| p.max_ns) as fn(&super::round::Point) -> u64),
        ("p99", RGBColor(0, 114, 178), |p| p.p99_ns),
        ("p50", RGBColor(0, 158, 115), |p| p.p50_ns),
    ] {
        let at =
            |point: &super::round::Point| (point.at_ms as f64 / 1e3, (value(point) as f64 / 1e6).max(bottom));
        let line = LineSeries::new(round.series.iter().map(at), colour.stroke_width(1));
        let drawn = chart.draw_series(line).map_err(failed)?;
        drawn.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
    }
    // Over the shades and the lines: a short phase's name goes on into the next one. They would lie over each other, so they
    // alternate in height.
    for (n, phase) in round.phases.iter().enumerate() {
        let height = top / [1.15, 1.8, 2.8].get(n % 3).copied().unwrap_or(1.5);
        let from = (phase.began_us as f64 / 1e6).max(begin);
        chart
            .draw_series([Text::new(phase.name.clone(), (from, height), ("sans-serif", 12))])
            .map_err(failed)?;
    }
    legend(&mut chart, SeriesLabelPosition::LowerRight)?;
    drop(chart);
    area.present().map_err(failed)
}

/// The percentile curves of one phase, of all subjects that have it, all rounds of each together.
///
/// # Errors
///
/// No subject has the phase.
pub fn percentiles(report: &Report, phase: &str) -> Result<String, Failure> {
    let mut svg = String::new();
    draw_percentiles(report, phase, SVGBackend::with_string(&mut svg, SIZE).into_drawing_area())?;
    Ok(svg)
}

fn draw_percentiles(
    report: &Report,
    phase: &str,
    area: DrawingArea<SVGBackend<'_>, Shift>,
) -> Result<(), Failure> {
    let curves: Vec<(&str, Vec<(f64, f64)>)> = report
        .subjects
        .iter()
        .map(|subject| (subject.name.as_str(), curve(&subject.pooled(phase).buckets())))
        .filter(|(_, curve)| !curve.is_empty())
        .collect();
    let points = || curves.iter().flat_map(|(_, curve)| curve);
    if points().next().is_none() {
        return Err(failed(format!("no subject has the phase {phase}")));
    }
    let low = points().map(|(_, ms)| *ms).fold(f64::INFINITY, f64::min).max(1e-4);
    let high = points().map(|(_, ms)| *ms).fold(low * 10.0, f64::max);
    let right = points().map(|(x, _)| *x).fold(2.0, f64::max);
    area.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{phase}: so many operations took at most so long"), ("sans-serif", 18))
        .margin(12)
        .margin_right(32)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, (low..high * 1.5).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("quantile")
        .y_desc("ms")
        .x_label_formatter(&|nines| quantile_name(*nines))
        .draw()
        .map_err(failed)?;
    for (n, (name, curve)) in curves.iter().enumerate() {
        let colour = COLOURS.get(n % COLOURS.len()).copied().unwrap_or(BLACK);
        let line = LineSeries::new(curve.iter().map(|(x, ms)| (*x, ms.max(low))), colour.stroke_width(2));
        let drawn = chart.draw_series(line).map_err(failed)?;
        drawn
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    legend(&mut chart, SeriesLabelPosition::UpperLeft)?;
    drop(chart);
    area.present().map_err(failed)
}

/// Points (nines, ms): at 2 nines lies what 99% of all latencies do not exceed.
fn curve(buckets: &[(Duration, u64)]) -> Vec<(f64, f64)> {
    let total: u64 = buckets.iter().map(|(_, count)| count).sum();
    let (mut seen, mut next) = (0, 0.0);
    let mut curve = Vec::new();
    for (latency, count) in buckets {
        seen += count;
        // The last bucket would be at infinity; it is where one more operation would be.
        let above = ((total - seen) as f64 / total as f64).max(0.5 / total as f64).max(TAIL_MIN);
        let point = (-above.log10(), latency.as_secs_f64() * 1e3);
        // A curve of some hundred points is enough for the eye: of each 0.005 nines the last one.
        match curve.last_mut() {
            Some(last) if point.0 < next => *last = point,
            _ => {
                curve.push(point);
                next = point.0 + 0.005;
            }
        }
    }
    curve
}

fn quantile_name(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10f64.powf(-nines));
    let digits = (nines.ceil() as usize).saturating_sub(2).min(4);
    format!("{percent:.digits$}%")
}

fn legend<
    'a,
    X: plotters::coord::ranged1d::Ranged<ValueType = f64>,
    Y: plotters::coord::ranged1d::Ranged<ValueType = f64>,
>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    position: SeriesLabelPosition,
) -> Result<(), Failure> {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 12))
        .draw()
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::tests::stalled;
    use super::super::{Report, Settings, SubjectReport};
    use super::*;

    #[test]
    fn pictures_show_what_was_measured() {
        let round = stalled();
        let subject = SubjectReport::new("fake & co", "none", vec![round.clone()]);
        let svg = over_time(&subject, &round).expect("drawn");
        for part in ["<svg", "fake &amp; co, round 0", "backfill", "rollback", "longest", "p99", "</svg>"] {
            assert!(svg.contains(part), "{part} is not in the picture");
        }
        // What is drawn later lies above: no shade cuts the name of the phase before it off.
        let shaded = svg.rfind("#D7E2F0").expect("a shade");
        assert!(svg.find("warm-up").is_some_and(|named| named > shaded));
        let report = Report::new(Settings::default(), vec![subject], vec![]);
        let svg = percentiles(&report, "backfill").expect("drawn");
        assert!(svg.contains("fake &amp; co") && svg.contains("99.9%"), "no curve");
        assert!(percentiles(&report, "nothing").is_err());
    }

    #[test]
    fn a_curve_is_at_two_nines_where_the_99th_percentile_is() {
        let buckets: Vec<_> = (1..=10_000).map(|us| (Duration::from_micros(us), 1)).collect();
        let curve = curve(&buckets);
        let (_, ms) =
            curve.iter().min_by(|a, b| (a.0 - 2.0).abs().total_cmp(&(b.0 - 2.0).abs())).expect("points");
        // Points are at most 0.005 nines apart where there are more, which is less than 0.01 ms here.
        assert!((ms - 9.9).abs() < 0.02, "{ms} ms");
        assert!(curve.first().is_some_and(|(x, _)| *x < 0.01), "it begins with the shortest");
        let (x, ms) =
            curve.iter().min_by(|a, b| (a.0 - 1.0).abs().total_cmp(&(b.0 - 1.0).abs())).expect("points");
        assert!((x - 1.0).abs() < 0.005 && (ms - 9.0).abs() < 0.02, "90% lie at {ms} ms");
        let (right, ms) = curve.last().expect("points");
        assert!((ms - 10.0).abs() < 1e-9 && (right - 20_000f64.log10()).abs() < 1e-6);
        assert_eq!([quantile_name(1.0), quantile_name(2.0), quantile_name(3.0)], ["90%", "99%", "99.9%"]);
    }
}
