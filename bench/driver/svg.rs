//! Bar charts as SVG: one per measure with its figures, and one of all ratios to TCP.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use crate::compare::Row;
use crate::lab::Transport;
use crate::report::{Setting, number};

/// Room for labels, at least, and what a letter needs of it.
const LABELS: f64 = 330.0;
const LETTER: f64 = 6.2;
const BARS: f64 = 420.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 13.0;
const GAP: f64 = 9.0;
const TOP: f64 = 58.0;

/// Bars that belong together, with one label.
struct Group {
    label: String,
    bars: Vec<Bar>,
}

struct Bar {
    color: &'static str,
    value: f64,
    text: String,
}

/// Writes `MEASURE.svg` for every measure among the rows, and `ratios.svg`.
pub(crate) fn write_all(directory: &Path, setting: &Setting, rows: &[Row]) -> Result<()> {
    let mut measures: Vec<&str> = rows.iter().map(|row| row.case.measure).collect();
    measures.dedup();
    for measure in measures {
        let own: Vec<&Row> = rows.iter().filter(|row| row.case.measure == measure).collect();
        let groups: Vec<Group> = own.iter().map(|row| figures(row)).collect();
        std::fs::write(directory.join(format!("{measure}.svg")), chart(measure, &setting.line(), &groups))?;
    }
    let groups: Vec<Group> = rows.iter().filter_map(ratio).collect();
    let title = "Convoy relative to loopback TCP (more is better)";
    Ok(std::fs::write(directory.join("ratios.svg"), chart(title, &setting.line(), &groups))?)
}

/// The colour of a transport in all charts.
pub(crate) fn color(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "#9aa5b1",
        Transport::Unix => "#5b8db8",
        Transport::Ring => "#6a9a5b",
        Transport::Convoy => "#d9822b",
    }
}

fn figures(row: &Row) -> Group {
    let bar = |transport: Transport| {
        let value = row.median(transport)?;
        Some(Bar { color: color(transport), value, text: format!("{} {}", transport.name(), number(value)) })
    };
    let label = format!("{} ({})", row.case.name, row.case.unit);
    Group { label, bars: row.transports.keys().copied().filter_map(bar).collect() }
}

fn ratio(row: &Row) -> Option<Group> {
    let shown = row.case.overview && (row.accelerated || !row.case.traffic);
    let value = row.ratio_to_tcp.filter(|_| shown)?;
    let bar = Bar { color: color(Transport::Convoy), value, text: format!("{value:.2}x") };
    Some(Group { label: format!("{}: {}", row.case.measure, row.case.name), bars: vec![bar] })
}

/// Horizontal bars on one logarithmic scale that begins a little below the smallest value.
fn chart(title: &str, note: &str, groups: &[Group]) -> String {
    let values =
        || groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value).filter(|value| *value > 0.0);
    let low = values().fold(f64::INFINITY, f64::min) / 1.6;
    let high = values().fold(f64::MIN_POSITIVE, f64::max);
    let place = |value: f64| (value.max(low) / low).ln() / (high / low).ln().max(f64::MIN_POSITIVE) * BARS;
    let heights = groups.iter().map(|group| group.bars.len() as f64 * BAR + GAP);
    let letters = groups.iter().map(|group| group.label.chars().count()).max().unwrap_or(0);
    let left = LABELS.max(letters as f64 * LETTER + 16.0);
    let (width, height) = (left + BARS + RIGHT, TOP + heights.sum::<f64>() + 10.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>\n\
         <text x=\"10\" y=\"40\" font-size=\"9\" fill=\"#555\">{}; logarithmic scale</text>\n",
        escape(title),
        escape(note)
    );
    let mut y = TOP;
    for group in groups {
        let middle = y + group.bars.len() as f64 * BAR / 2.0 + 4.0;
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            escape(&group.label)
        );
        for bar in &group.bars {
            let length = place(bar.value).max(1.0);
            let _ = writeln!(
                svg,
                "<rect x=\"{left}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" font-size=\"10\">{}</text>",
                BAR - 2.0,
                bar.color,
                left + length + 5.0,
                y + BAR - 4.0,
                escape(&bar.text)
            );
            y += BAR;
        }
        y += GAP;
    }
    svg + "</svg>\n"
}

/// Text as XML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{Bar, Group, chart};

    #[test]
    fn the_largest_value_fills_the_scale_and_text_is_escaped() {
        let bar = |value| Bar { color: "red", value, text: format!("{value}") };
        let group = Group { label: "a < b".to_owned(), bars: vec![bar(1.0), bar(100.0)] };
        let svg = chart("title", "note", &[group]);
        assert!(svg.contains("width=\"420.0\""));
        assert!(svg.contains("a &lt; b"));
    }

    #[test]
    fn nothing_measured_is_still_a_picture() {
        assert!(chart("title", "note", &[]).ends_with("</svg>\n"));
    }
}
