//! Curves as figures: an SVG each, on white, so that it reads on a dark page as well, and their numbers in one JSON file.

mod axis;

use std::fs;
use std::path::Path;

use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Serialize;

use crate::curves::{Curve, Point, Spread};
use crate::error::{BenchError, Result};
use crate::machine::Machine;
use axis::{Axis, counts, mark};

/// The file of the numbers.
const NUMBERS: &str = "curves.json";
const WIDTH: u32 = 860;
/// The height of a figure without the machine's lines under it.
const HEIGHT: u32 = 476;
/// The height of title and legend.
const HEAD: u32 = 62;
const LINE_HEIGHT: u32 = 17;
/// Characters of a line under a figure, at most.
const LINE: usize = 120;
const FONT: &str = "sans-serif";
const OURS: RGBColor = RGBColor(0x1f, 0x5f, 0xbf);
const CEILING: RGBColor = RGBColor(0xc8, 0x5a, 0x11);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0x66, 0x66, 0x66);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

type Area<'d> = DrawingArea<SVGBackend<'d>, Shift>;
type Chart<'a, 'd> = ChartContext<'a, SVGBackend<'d>, Cartesian2d<Axis, Axis>>;
type Drawn<T = (), E = DrawingAreaErrorKind<std::io::Error>> = std::result::Result<T, E>;

/// What the file of numbers holds.
#[derive(Serialize)]
struct Numbers<'r> {
    machine: &'r Machine,
    curves: &'r [Curve],
}

/// Writes a figure of each curve into `directory`, and their numbers beside them.
pub(crate) fn write(directory: &Path, machine: &Machine, curves: &[Curve]) -> Result<()> {
    let put = |name: &str, text: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|error| BenchError::new(format!("{}: {error}", path.display())))
    };
    for curve in curves {
        put(&format!("{}.svg", curve.name), figure(machine, curve)?.as_bytes())?;
    }
    let mut numbers = serde_json::to_vec_pretty(&Numbers { machine, curves }).map_err(BenchError::new)?;
    numbers.push(b'\n');
    put(NUMBERS, &numbers)
}

/// Draws a curve as SVG.
fn figure(machine: &Machine, curve: &Curve) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, &lines(&machine.line()), curve)
        .map_err(|error| BenchError::new(format!("figure {}: {error}", curve.name)))?;
    svg.push('\n');
    Ok(svg)
}

fn draw(svg: &mut String, machine: &[String], curve: &Curve) -> Drawn {
    let height = HEIGHT + LINE_HEIGHT * machine.len() as u32 + 8;
    let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let (above, caption) = root.split_vertically(HEIGHT);
    let (head, plot) = above.split_vertically(HEAD);
    for (at, line) in machine.iter().enumerate() {
        write_at(&caption, line, (14, at as i32 * LINE_HEIGHT as i32), 12, FAINT)?;
    }
    title_and_legend(&head, curve)?;
    curves(&plot, curve)?;
    root.present()
}

fn title_and_legend(head: &Area<'_>, curve: &Curve) -> Drawn {
    write_at(head, &curve.title, (14, 12), 16, INK)?;
    let mut left = 80;
    for (name, colour) in [(curve.ours, OURS), (curve.against, CEILING)] {
        head.draw(&PathElement::new(vec![(left, 47), (left + 26, 47)], colour.stroke_width(2)))?;
        head.draw(&Circle::new((left + 13, 47), 4, colour.filled()))?;
        write_at(head, name, (left + 34, 40), 13, INK)?;
        left += 34 + 9 * name.len() as i32 + 24;
    }
    write_at(
        head,
        "medians; bars from the least to the greatest; at the top ours to the ceiling",
        (left, 40),
        13,
        FAINT,
    )
}

fn write_at(area: &Area<'_>, text: &str, at: (i32, i32), size: u32, colour: RGBColor) -> Drawn {
    area.draw(&Text::new(text.to_owned(), at, (FONT, size).into_font().color(&colour)))
}

fn curves(area: &Area<'_>, curve: &Curve) -> Drawn {
    let spreads = |point: &Point| [point.ours, point.ceiling];
    let figures: Vec<f64> =
        curve.points.iter().flat_map(spreads).flat_map(|spread| [spread.min, spread.max]).collect();
    let x = Axis::of_points(&curve.points.iter().map(|point| point.x).collect::<Vec<_>>());
    let y = Axis::of_figures(&figures);
    let top = y.at(0.97);
    let mut chart = ChartBuilder::on(area)
        .margin_right(24)
        .margin_left(8)
        .margin_bottom(12)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .label_style((FONT, 13).into_font().color(&INK))
        .axis_desc_style((FONT, 14).into_font().color(&INK))
        .x_desc(curve.x)
        .y_desc(counts(curve.unit))
        .x_label_formatter(&|x| x.to_string())
        .y_label_formatter(&|y| mark(*y))
        .draw()?;
    line(&mut chart, curve, CEILING, |point| point.ceiling)?;
    line(&mut chart, curve, OURS, |point| point.ours)?;
    let ratio = (FONT, 12).into_font().color(&FAINT).pos(Pos::new(HPos::Center, VPos::Top));
    chart.draw_series(
        curve
            .points
            .iter()
            .map(|point| Text::new(format!("{:.2}", point.ratio.median), (point.x, top), ratio.clone())),
    )?;
    Ok(())
}

fn line(chart: &mut Chart<'_, '_>, curve: &Curve, colour: RGBColor, of: impl Fn(&Point) -> Spread) -> Drawn {
    let points = curve.points.iter().map(|point| (point.x, of(point)));
    let bars = points.clone().map(|(x, Spread { median, min, max })| {
        ErrorBar::new_vertical(x, min, median, max, colour.mix(0.6).filled(), 8)
    });
    chart.draw_series(bars)?;
    let medians = points.map(|(x, spread)| (x, spread.median));
    chart.draw_series(LineSeries::new(medians, colour.stroke_width(2)).point_size(4))?;
    Ok(())
}

/// Cuts what is said of the machine into lines that fit under a figure.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in text.lines() {
        let mut line = String::new();
        for word in part.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > LINE {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curves::tests::drawn;

    fn texts(svg: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let texts = document.descendants().filter(|node| node.has_tag_name("text"));
        texts.map(|node| node.text().unwrap_or_default().trim().to_owned()).collect()
    }

    #[test]
    fn a_figure_names_its_series_its_axes_their_units_and_the_machine() {
        let curve = drawn(&[(1.0, 5e5, 8e5), (64.0, 1e6, 1.25e6), (4096.0, 1.2e6, 1.25e6)]);
        let machine = Machine { cpu: "Processor <1> & more".into(), ..Machine::look() };
        let svg = figure(&machine, &curve).unwrap();
        let texts = texts(&svg);
        for text in [
            "A rate by what grows",
            "keymill",
            "bare loop",
            "items a batch",
            "items a second",
            "4096",
            "0.80",
        ] {
            assert!(texts.iter().any(|found| found == text), "{text} is not among {texts:?}");
        }
        assert!(texts.iter().any(|text| text.starts_with("Processor <1> & more, ")), "{texts:?}");
        // On white, whatever page it stands on.
        assert!(svg.contains("fill=\"#FFFFFF\""));
    }

    #[test]
    fn more_is_drawn_higher_and_further_right() {
        let svg = figure(&Machine::look(), &drawn(&[(1.0, 1e5, 9e5), (2.0, 4e5, 9e5)])).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let ours = format!("#{:02X}{:02X}{:02X}", OURS.0, OURS.1, OURS.2);
        let line = document
            .descendants()
            .filter(|node| node.has_tag_name("polyline") && node.attribute("stroke") == Some(&*ours))
            .filter_map(|node| node.attribute("points"))
            .next_back()
            .unwrap();
        let points: Vec<(i32, i32)> = line
            .split_whitespace()
            .map(|point| {
                let (x, y) = point.split_once(',').unwrap();
                (x.parse().unwrap(), y.parse().unwrap())
            })
            .collect();
        let [first, second] = points[..] else { panic!("{points:?}") };
        assert!(second.0 > first.0 && second.1 < first.1, "{points:?}");
    }

    #[test]
    fn figures_and_numbers_stand_side_by_side_in_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &Machine::look(), &[drawn(&[(1.0, 1.0, 2.0)])]).unwrap();
        assert!(directory.path().join("batch-size.svg").is_file());
        let numbers = fs::read(directory.path().join(NUMBERS)).unwrap();
        let numbers: serde_json::Value = serde_json::from_slice(&numbers).unwrap();
        assert_eq!(numbers["curves"][0]["points"][0]["ceiling"]["median"], 2.0);
        assert!(numbers["machine"]["cores"].as_u64().unwrap() > 0);
        let absent = directory.path().join("absent");
        let error = write(&absent, &Machine::look(), &[]).unwrap_err().to_string();
        assert!(error.contains("curves.json"), "{error}");
    }

    #[test]
    fn what_is_said_of_the_machine_is_cut_between_words() {
        let text = format!("{}\nsecond", ["word"; 40].join(" "));
        let lines = lines(&text);
        assert!(lines.iter().all(|line| line.len() <= LINE && !line.starts_with(' ')));
        assert_eq!(lines.join(" "), text.replace('\n', " "));
        assert_eq!(lines.last().unwrap(), "second");
    }
}
