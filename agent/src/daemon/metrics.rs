//! A snapshot in Prometheus' text format, version 0.0.4.

use super::status::{LinkStatus, Status};
use std::fmt::{Display, Write};

/// What a link's metric is called, its type, what it means, its value.
type LinkMetric = (&'static str, &'static str, &'static str, fn(&LinkStatus) -> Option<f64>);

const LINK_METRICS: [LinkMetric; 15] = [
    ("link_up", "gauge", "Whether the link can be used.", |link| Some(f64::from(link.state == "up"))),
    ("link_streams", "gauge", "Connections on the link now.", |link| Some(link.streams as f64)),
    ("link_in_flight", "gauge", "Batches not answered yet.", |link| Some(link.in_flight as f64)),
    ("link_streams_opened_total", "counter", "Connections that the link has had.", |link| {
        Some(link.streams_opened as f64)
    }),
    ("link_batches_sent_total", "counter", "Batches sent.", |link| Some(link.batches_sent as f64)),
    ("link_batches_received_total", "counter", "Batches received.", |link| {
        Some(link.batches_received as f64)
    }),
    ("link_large_sent_total", "counter", "Large payloads written beside the batches.", |link| {
        Some(link.large_sent as f64)
    }),
    ("link_acknowledgements_sent_total", "counter", "Batches sent only to answer.", |link| {
        Some(link.acknowledgements_sent as f64)
    }),
    ("link_messages_sent_total", "counter", "Messages of programs sent.", |link| {
        Some(link.messages_sent as f64)
    }),
    ("link_payload_bytes_sent_total", "counter", "Bytes of programs sent.", |link| {
        Some(link.payload_bytes_sent as f64)
    }),
    ("link_payload_bytes_received_total", "counter", "Bytes for programs received.", |link| {
        Some(link.payload_bytes_received as f64)
    }),
    ("link_batch_bytes_sent_total", "counter", "Bytes of batches sent, with their heads.", |link| {
        Some(link.batch_bytes_sent as f64)
    }),
    ("link_batch_bytes_received_total", "counter", "Bytes of batches received, with their heads.", |link| {
        Some(link.batch_bytes_received as f64)
    }),
    ("link_wire_bytes_sent_total", "counter", "Bytes of packets sent, by model.", |link| {
        link.wire_bytes_sent.map(|bytes| bytes as f64)
    }),
    ("link_utilisation_ratio", "gauge", "Bytes of programs of all bytes on the wire.", |link| {
        link.utilisation
    }),
];

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.0, "# HELP convoy_agent_{name} {help}\n# TYPE convoy_agent_{name} {kind}\n");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.0, "convoy_agent_{name}");
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{}\"", escaped(text));
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.value(name, &[], value);
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All metrics.
pub(super) fn text(status: &Status) -> String {
    let mut text = Text(String::new());
    text.head("info", "gauge", "Always 1; its labels say what runs.");
    text.value("info", &[("version", &status.version), ("host", &status.host)], 1);
    text.single("uptime_seconds", "gauge", "Since the agent was started.", status.uptime_seconds);
    text.head("rail_info", "gauge", "Always 1, for each device in use.");
    for rail in &status.rails {
        let address = rail.address.as_deref().unwrap_or_default();
        let labels = [("rail", &*rail.name), ("provider", &*rail.provider), ("address", address)];
        text.value("rail_info", &labels, 1);
    }
    text.single("hosts", "gauge", "Other agents that are connected.", status.hosts.len());
    text.single("programs", "gauge", "Programs of this host that are connected.", status.programs.len());
    let streams: u64 = status.programs.iter().map(|program| program.streams).sum();
    text.single("streams", "gauge", "Connections of programs of this host.", streams);
    for (name, kind, help, value) in [
        ("offers_total", "counter", "Connections that programs have offered.", status.offers),
        ("offers_waiting", "gauge", "Offers that wait for the other end.", status.offers_waiting),
        ("offers_declined_total", "counter", "Offers that came to nothing.", status.offers_declined),
        ("links_lost_total", "counter", "Links that ended.", status.links_lost),
        (
            "memory_promised_bytes",
            "gauge",
            "Bytes that others may send ahead to programs of this host.",
            status.memory_promised,
        ),
        ("doorbells_rung_total", "counter", "Programs woken.", status.doorbells_rung),
        ("sleeps_total", "counter", "Times the engine had nothing to do.", status.sleeps),
        ("control_half_open", "gauge", "Control connections shaking hands.", status.control.half_open),
        ("control_dials_total", "counter", "Agents called.", status.control.dials),
        ("control_dials_failed_total", "counter", "Calls without an answer.", status.control.dials_failed),
        ("control_unreachable", "gauge", "Addresses known to have no agent.", status.control.unreachable),
    ] {
        text.single(name, kind, help, value);
    }
    let up = status.control.connections.iter().filter(|connection| connection.state == "up").count();
    text.single("control_connections", "gauge", "Control connections in use.", up);
    text.head("control_refused_total", "counter", "Control connections refused.");
    for (reason, count) in &status.control.refused {
        text.value("control_refused_total", &[("reason", reason)], count);
    }
    for (name, kind, help, value) in LINK_METRICS {
        text.head(name, kind, help);
        for link in &status.links {
            let id = link.id.to_string();
            if let Some(value) = value(link) {
                text.value(name, &[("link", &id), ("peer", &link.peer), ("rail", &link.rail)], value);
            }
        }
    }
    text.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn some() -> Status {
        let link = |id, wire| LinkStatus {
            id,
            peer: "a \"b\"\\\n".into(),
            rail: "tcp eth0".into(),
            state: "up".into(),
            messages_sent: 12_345_678_901,
            wire_bytes_sent: wire,
            ..LinkStatus::default()
        };
        Status { version: "1".into(), links: vec![link(0, Some(5)), link(1, None)], ..Status::default() }
    }

    #[test]
    fn every_metric_is_announced_once_with_its_type() {
        let text = text(&some());
        let mut announced = HashSet::new();
        let mut seen = HashSet::new();
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                let (name, kind) = head.split_once(' ').unwrap_or_default();
                assert!(announced.insert(name.to_owned()), "{name} twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{head}");
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap_or_default();
                let name = series.split('{').next().unwrap_or_default();
                assert!(announced.contains(name), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(seen.insert(series.to_owned()), "{series} twice");
            }
        }
        assert!(announced.iter().all(|name| name.starts_with("convoy_agent_")));
    }

    #[test]
    fn labels_are_escaped_and_numbers_whole() {
        let text = text(&some());
        let series = r#"convoy_agent_link_messages_sent_total{link="0",peer="a \"b\"\\\n",rail="tcp eth0"}"#;
        assert!(text.contains(&format!("{series} 12345678901\n")), "{text}");
        assert_eq!(text.matches("link_wire_bytes_sent_total{").count(), 1, "unknown is left out");
        assert!(text.ends_with('\n'));
    }
}
