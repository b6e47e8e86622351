//! Charts of curves as SVG: a figure over sizes or numbers, one curve for each transport, both scales logarithmic.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use crate::compare::Row;
use crate::lab::Transport;
use crate::report::{Setting, number};
use crate::svg::{color, escape};

const WIDTH: f64 = 780.0;
const HEIGHT: f64 = 430.0;
/// The area of the curves.
const LEFT: f64 = 90.0;
const RIGHT: f64 = 560.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 375.0;
/// Two labels below the horizontal axis are at least as far apart.
const LABEL_WIDTH: f64 = 42.0;

/// Which points make up a chart.
struct Chart {
    /// Its name without `.svg`.
    file: &'static str,
    measure: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    /// The curves by the names that the points have, and what the legend adds to the transport.
    curves: &'static [(&'static str, &'static str)],
}

const CHARTS: [Chart; 4] = [
    Chart {
        file: "curve-latency",
        measure: "pingpong",
        title: "Round trip by message size (less is better)",
        x: "bytes of a message",
        y: "us round trip",
        curves: &[("", "")],
    },
    Chart {
        file: "curve-sockets",
        measure: "many",
        title: "64 B messages one way by number of sockets (more is better)",
        x: "sockets",
        y: "messages/s",
        curves: &[("", "")],
    },
    Chart {
        file: "curve-open",
        measure: "scale",
        title: "64 B messages over at most 64 active connections among open ones (more is better)",
        x: "open connections",
        y: "messages/s",
        curves: &[("rate", "")],
    },
    Chart {
        file: "curve-batch",
        measure: "batch",
        title: "64 B messages that a receiver finds at one look, mean",
        x: "sockets",
        y: "messages in a batch",
        curves: &[("oneway", ", one way at full speed"), ("reply", ", one request on each")],
    },
];

/// One line through its points.
struct Curve {
    label: String,
    color: &'static str,
    dashed: bool,
    points: Vec<Place>,
}

/// Where a point is, with the range of its rounds.
#[derive(Clone, Copy)]
struct Place {
    x: f64,
    y: f64,
    least: f64,
    most: f64,
}

/// Writes the charts for which there are points.
pub(crate) fn write_all(directory: &Path, setting: &Setting, rows: &[Row]) -> Result<()> {
    for chart in &CHARTS {
        let curves = curves(chart, rows);
        if !curves.is_empty() {
            let path = directory.join(format!("{}.svg", chart.file));
            std::fs::write(path, draw(chart, &setting.line(), &curves))?;
        }
    }
    Ok(())
}

fn curves(chart: &Chart, rows: &[Row]) -> Vec<Curve> {
    let mut found = Vec::new();
    for (index, (curve, note)) in chart.curves.iter().enumerate() {
        for transport in Transport::ALL {
            let place = |row: &Row| {
                let point = row.case.point.as_ref().filter(|point| point.curve == *curve)?;
                let figures = row.transports.get(&transport)?;
                let y = figures.median.filter(|median| *median > 0.0)?;
                Some(Place { x: point.x, y, least: figures.least, most: figures.most })
            };
            let own = rows.iter().filter(|row| row.case.measure == chart.measure);
            let points: Vec<Place> = own.filter_map(place).collect();
            if !points.is_empty() {
                let label = format!("{}{note}", transport.name());
                found.push(Curve { label, color: color(transport), dashed: index > 0, points });
            }
        }
    }
    found
}

/// A logarithmic scale from values to places in the picture.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// A scale for all `values`, which leaves the share `margin` of the place free at both ends.
    fn of(values: impl Iterator<Item = f64>, from: f64, to: f64, margin: f64) -> Self {
        let (low, high) = values
            .fold((f64::INFINITY, 0.0), |(low, high), value| (f64::min(low, value), f64::max(high, value)));
        let room = (high / low).max(2.0).powf(margin);
        Self { low: low / room, high: high * room, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (value / self.low).ln() / (self.high / self.low).ln() * (self.to - self.from)
    }

    /// Round values within the scale: powers of ten, and between them 2 and 5 where there are few.
    fn round_values(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high / self.low < 1000.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let values = decades.flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
        values.filter(|value| (self.low..=self.high).contains(value)).collect()
    }
}

fn draw(chart: &Chart, note: &str, curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let x = Scale::of(points().map(|point| point.x), LEFT, RIGHT, 0.03);
    let y = Scale::of(points().flat_map(|point| [point.least, point.most, point.y]), BOTTOM, TOP, 0.06);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>\n\
         <text x=\"10\" y=\"40\" font-size=\"9\" fill=\"#555\">{}; strokes: all rounds; logarithmic scales</text>\n",
        escape(chart.title),
        escape(note)
    );
    axes(&mut svg, chart, &x, &y, points().map(|point| point.x).collect());
    for (index, curve) in curves.iter().enumerate() {
        line(&mut svg, curve, &x, &y);
        legend(&mut svg, curve, index);
    }
    svg + "</svg>\n"
}

// Writing to a String cannot fail: the results of writeln are dropped here and below.

fn axes(svg: &mut String, chart: &Chart, x: &Scale, y: &Scale, mut values: Vec<f64>) {
    for value in y.round_values() {
        let place = y.place(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{place:.1}\" y2=\"{place:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            place + 4.0,
            tick(value)
        );
    }
    values.sort_by(f64::total_cmp);
    values.dedup();
    let mut last = f64::NEG_INFINITY;
    for value in values {
        let place = x.place(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{place:.1}\" x2=\"{place:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\" stroke=\"#eee\"/>"
        );
        if place - last >= LABEL_WIDTH {
            last = place;
            let (below, text) = (BOTTOM + 16.0, tick(value));
            let _ =
                writeln!(svg, "<text x=\"{place:.1}\" y=\"{below}\" text-anchor=\"middle\">{text}</text>");
        }
    }
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"#555\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
         <text transform=\"translate(20 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 38.0,
        escape(chart.x),
        (TOP + BOTTOM) / 2.0,
        escape(chart.y)
    );
}

fn line(svg: &mut String, curve: &Curve, x: &Scale, y: &Scale) {
    let (color, mut corners) = (curve.color, String::new());
    for point in &curve.points {
        let (across, up) = (x.place(point.x), y.place(point.y));
        let _ = write!(corners, "{across:.1},{up:.1} ");
        let _ = writeln!(
            svg,
            "<line x1=\"{across:.1}\" x2=\"{across:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\" \
             stroke-opacity=\"0.5\"/><circle cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"3\" fill=\"{color}\"/>",
            y.place(point.least),
            y.place(point.most)
        );
    }
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"{}/>",
        corners.trim_end(),
        dashes(curve)
    );
}

fn legend(svg: &mut String, curve: &Curve, index: usize) {
    let (left, y) = (RIGHT + 15.0, TOP + 12.0 + 18.0 * index as f64);
    let _ = writeln!(
        svg,
        "<line x1=\"{left}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{}\" stroke-width=\"2\"{}/>\
         <text x=\"{}\" y=\"{}\">{}</text>",
        left + 24.0,
        curve.color,
        dashes(curve),
        left + 30.0,
        y + 4.0,
        escape(&curve.label)
    );
}

fn dashes(curve: &Curve) -> &'static str {
    if curve.dashed { " stroke-dasharray=\"6 4\"" } else { "" }
}

/// A round number or a size.
fn tick(value: f64) -> String {
    if value >= 1000.0 { number(value) } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::{CHARTS, Curve, Place, Scale, draw};

    #[test]
    fn scales_are_logarithmic_and_have_round_values() {
        let scale = Scale::of([1.0, 100.0].into_iter(), 0.0, 100.0, 0.0);
        assert_eq!([1.0, 10.0, 100.0].map(|value| scale.place(value).round()), [0.0, 50.0, 100.0]);
        assert_eq!(scale.round_values(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        let wide = Scale::of([1.0, 1e4].into_iter(), 0.0, 1.0, 0.0);
        assert_eq!(wide.round_values(), [1.0, 10.0, 100.0, 1e3, 1e4]);
    }

    #[test]
    fn a_single_point_is_still_a_picture() {
        let points = vec![Place { x: 1.0, y: 2.0, least: 2.0, most: 2.0 }];
        let curve = Curve { label: "a < b".to_owned(), color: "red", dashed: false, points };
        let svg = draw(&CHARTS[0], "note", &[curve]);
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN") && !svg.contains("inf"));
    }
}
