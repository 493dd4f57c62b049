//! Latencies as a picture: curves over the percentiles in an SVG, and bars at a terminal.

use hdrhistogram::Histogram;
use plotters::prelude::{
    BLACK, ChartBuilder, Color, IntoDrawingArea, LineSeries, PathElement, RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
};
use std::error::Error;
use std::path::Path;

/// The picture's size in pixels.
const SIZE: (u32, u32) = (900, 480);

/// Characters of the longest bar.
const BAR: f64 = 60.0;

/// Points of a curve.
const POINTS: u32 = 300;

/// How far to the right the percentiles go: 1 - 10^-3, what a thousand events tell.
const NINES: f64 = 3.0;

/// Colours that are told apart with every kind of colour blindness (M. Okabe and K. Ito, "Color Universal Design").
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
];

/// What is drawn as one line.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// What it is.
    pub(super) name: String,
    /// The times in microseconds.
    pub(super) times: Histogram<u64>,
}

/// Draws the time below which a share of the events stays, over that share. The axis counts nines, so that the few slow ones are seen.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn draw(path: &Path, curves: &[Curve]) -> Result<(), Box<dyn Error + Send + Sync>> {
    let longest = curves.iter().map(|curve| at(&curve.times, NINES)).fold(1.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let failed = |error: &dyn Error| error.to_string();
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..NINES, 0.0..longest * 1.05)
            .map_err(|error| failed(&error))?;
        let percentile = |nines: &f64| {
            format!("{:.4}", 100.0 * (1.0 - 10_f64.powf(-nines))).trim_end_matches('0').trim_end_matches('.').to_owned() + " %"
        };
        chart
            .configure_mesh()
            .x_desc("share of the events")
            .y_desc("ms from publish to receipt")
            .x_labels(4)
            .x_label_formatter(&percentile)
            .light_line_style(WHITE)
            .draw()
            .map_err(|error| failed(&error))?;
        for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            let points = (0..=POINTS).map(|step| {
                let nines = NINES * f64::from(step) / f64::from(POINTS);
                (nines, at(&curve.times, nines))
            });
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))
                .map_err(|error| failed(&error))?
                .label(curve.name.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperLeft).border_style(BLACK.mix(0.3)).background_style(WHITE.mix(0.9));
        labels.draw().map_err(|error| failed(&error))?;
        area.present().map_err(|error| failed(&error))?;
    }
    std::fs::write(path, svg)?;
    Ok(())
}

/// A bar for each curve: full up to the median, half up to the 90th percentile, light up to the 99th.
pub(super) fn text(curves: &[Curve]) -> String {
    let quantiles = |times: &Histogram<u64>| [0.5, 0.9, 0.99].map(|quantile| times.value_at_quantile(quantile) as f64 / 1e3);
    let longest = curves.iter().map(|curve| quantiles(&curve.times)[2]).fold(f64::MIN_POSITIVE, f64::max);
    let width = curves.iter().map(|curve| curve.name.chars().count()).max().unwrap_or_default();
    let lines = curves.iter().map(|Curve { name, times }| {
        let ends = quantiles(times).map(|quantile| (quantile / longest * BAR).round() as usize);
        let bar = "█".repeat(ends[0]) + &"▓".repeat(ends[1] - ends[0]) + &"░".repeat(ends[2] - ends[1]);
        format!("{name:<width$} {bar}\n")
    });
    format!("{}{:width$} █ median  ▓ 90 %  ░ 99 %, up to {longest:.1} ms\n", lines.collect::<String>(), "")
}

/// The time in milliseconds that a share of `1 - 10^-nines` of the events stays below.
fn at(times: &Histogram<u64>, nines: f64) -> f64 {
    times.value_at_quantile(1.0 - 10_f64.powf(-nines)) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves() -> Vec<Curve> {
        [("one", 1_000), ("another", 3_000)]
            .map(|(name, step)| {
                let mut times = Histogram::new(3).expect("three digits are allowed");
                for event in 1..=100_u64 {
                    times.record(event * step / 100).expect("it grows");
                }
                Curve { name: name.to_owned(), times }
            })
            .into()
    }

    #[test]
    fn the_picture_names_every_curve_and_its_axes() {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        draw(&path, &curves()).expect("drawn");
        let svg = std::fs::read_to_string(&path).expect("read");
        for part in ["<svg", "one", "another", "share of the events", "ms from publish to receipt", "90 %", "99.9 %"] {
            assert!(svg.contains(part), "{part}");
        }
    }

    #[test]
    fn the_longest_bar_is_that_of_the_longest_times() {
        let text = text(&curves());
        let bars: Vec<usize> = text.lines().map(|line| line.chars().filter(|one| "█▓░".contains(*one)).count()).collect();
        assert_eq!(bars, [20, 60, 3], "{text}");
    }
}
