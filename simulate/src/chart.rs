//! The chart of [`crate::scale`]: memory for links, and messages in a batch, over the number of hosts. SVG, both axes by
//! powers of ten.

use crate::scale::{Pattern, Row, rows};
use std::fmt::Write;

const HOSTS: [u64; 9] = [10, 20, 50, 100, 300, 1_000, 2_000, 5_000, 10_000];
/// The last one is drawn over the others where they are the same.
const DASHES: [&str; 3] = ["", "", "4 5"];
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 50.0;
const BETWEEN: f64 = 470.0;

/// The chart as SVG.
pub fn svg() -> String {
    let rows = rows(&HOSTS);
    let mut text = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 930 350\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"930\" height=\"350\" fill=\"white\"/>\n",
    );
    let memory = Panel {
        left: LEFT,
        title: "Memory for links, per host",
        from: 10_000_000,
        decades: 4,
        unit: decimal,
    };
    memory.draw(&mut text, &rows, |row| row.link_bytes as f64);
    let batches = Panel {
        left: LEFT + BETWEEN,
        title: "Messages in a batch, 4 million/s a host",
        from: 1,
        decades: 1,
        unit: |number| number.to_string(),
    };
    batches.draw(&mut text, &rows, |row| row.messages);
    for (index, row) in rows.iter().filter_map(|rows| rows.first()).enumerate() {
        let name = match row.pattern {
            Pattern::All => "each speaks to all".into(),
            Pattern::Partners(partners) => format!("each speaks to {partners}"),
        };
        let x = LEFT + 170.0 * index as f64;
        let colour = COLOURS[index];
        let _ = writeln!(
            text,
            "<line x1=\"{x}\" y1=\"330\" x2=\"{}\" y2=\"330\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{}\" y=\"334\">{name}</text>",
            x + 24.0,
            x + 30.0
        );
    }
    text + "</svg>\n"
}

/// One of the two diagrams; the axis goes from a number over so many powers of ten.
struct Panel {
    left: f64,
    title: &'static str,
    from: u64,
    decades: u32,
    unit: fn(u64) -> String,
}

impl Panel {
    fn x(&self, hosts: f64) -> f64 {
        self.left + WIDTH * (hosts / 10.0).log10() / 3.0
    }

    fn y(&self, value: f64) -> f64 {
        TOP + HEIGHT * (1.0 - (value / self.from as f64).log10() / f64::from(self.decades))
    }

    fn draw(&self, text: &mut String, rows: &[Vec<Row>], value: impl Fn(&Row) -> f64) {
        let left = self.left;
        let _ = writeln!(
            text,
            "<text x=\"{left}\" y=\"30\" font-size=\"14\" font-weight=\"bold\">{}</text>",
            self.title
        );
        for step in 0..=self.decades {
            let number = self.from * 10u64.pow(step);
            let y = self.y(number as f64);
            let _ = writeln!(
                text,
                "<line x1=\"{left}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left + WIDTH,
                left - 6.0,
                y + 4.0,
                (self.unit)(number)
            );
        }
        for hosts in [10u64, 100, 1_000, 10_000] {
            let x = self.x(hosts as f64);
            let _ = writeln!(
                text,
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{hosts}</text>",
                TOP + HEIGHT,
                TOP + HEIGHT + 18.0
            );
        }
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">hosts</text>",
            left + WIDTH / 2.0,
            TOP + HEIGHT + 36.0
        );
        for ((rows, colour), dashes) in rows.iter().zip(COLOURS).zip(DASHES) {
            let points: Vec<String> = rows
                .iter()
                .map(|row| format!("{:.1},{:.1}", self.x(row.hosts as f64), self.y(value(row))))
                .collect();
            let _ = writeln!(
                text,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\" stroke-dasharray=\"{dashes}\"/>",
                points.join(" ")
            );
        }
    }
}

/// Bytes in powers of a thousand.
fn decimal(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}
