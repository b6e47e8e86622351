//! The agent of this host, if one runs that this user may ask: its links to other hosts.

use super::table::{aligned, printable, short};
use crate::contact;
use crate::daemon::status::{LinkStatus, Status};
use convoy_runtime::config::settings;
use serde_json::Value;
use std::fmt::Write;
use std::time::{Duration, Instant};

const HEADS: [&str; 10] = [
    "PEER",
    "RAIL",
    "STATE",
    "STREAMS",
    "MSGS OUT",
    "MSGS/BATCH",
    "BYTES OUT",
    "BYTES IN",
    "WIRE OUT",
    "UTIL",
];
const LEFT: [usize; 3] = [0, 1, 2];

/// What an agent has said.
pub(super) struct Agent {
    /// As it was said.
    pub(super) value: Value,
    status: Status,
    asked: Instant,
    before: Option<(Status, Duration)>,
}

/// Asks the agent; nothing when there is none, or it does not answer this user.
pub(super) fn find(earlier: Option<&Agent>) -> Option<Agent> {
    let places = contact::places(settings());
    let text = places.iter().find_map(|place| contact::ask(place, "/status").ok())?;
    let value: Value = serde_json::from_str(&text).ok()?;
    let status: Status = serde_json::from_value(value.clone()).ok()?;
    let asked = Instant::now();
    let same = earlier.filter(|earlier| earlier.status.pid == status.pid);
    let before = same.map(|earlier| (earlier.status.clone(), asked.duration_since(earlier.asked)));
    Some(Agent { value, status, asked, before })
}

/// One line about the agent, and one for each link.
pub(super) fn table(agent: &Agent) -> String {
    let status = &agent.status;
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    let mut text = format!(
        "agent (process {}): {}, {}, {} waiting of {}\n",
        status.pid,
        count(status.hosts.len(), "other host"),
        count(status.programs.len(), "program"),
        status.offers_waiting,
        count(usize::try_from(status.offers).unwrap_or(usize::MAX), "offer"),
    );
    if status.links.is_empty() {
        let _ = writeln!(text, "no links to other hosts");
        return text;
    }
    let rows: Vec<_> = status.links.iter().map(|link| row(agent, link)).collect();
    text.push_str("links\n");
    text.push_str(&aligned(&HEADS, &LEFT, &rows));
    text
}

fn row(agent: &Agent, link: &LinkStatus) -> Vec<String> {
    let before = agent.before.as_ref().and_then(|(status, span)| {
        let earlier = status.links.iter().find(|earlier| earlier.id == link.id)?;
        Some((earlier, span.as_secs_f64().max(1e-6)))
    });
    let grown = |value: fn(&LinkStatus) -> u64| {
        let earlier = before.map_or(0, |(earlier, _)| value(earlier));
        value(link).saturating_sub(earlier) as f64
    };
    let seconds = before.map_or(1.0, |(_, seconds)| seconds);
    let messages = grown(|link| link.messages_sent);
    let per_batch = LinkStatus::per_batch(
        messages,
        grown(|link| link.batches_sent),
        grown(|link| link.acknowledgements_sent),
    );
    let payload = grown(|link| link.payload_bytes_sent);
    let wire = link.wire_bytes_sent.map(|_| grown(|link| link.wire_bytes_sent.unwrap_or(0)));
    let utilisation = wire.filter(|wire| *wire > 0.0).map(|wire| payload / wire);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        printable(&link.peer),
        printable(&link.rail),
        printable(&link.state),
        link.streams.to_string(),
        short(messages / seconds),
        or_dash(per_batch.map(|ratio| format!("{ratio:.1}"))),
        short(payload / seconds),
        short(grown(|link| link.payload_bytes_received) / seconds),
        or_dash(wire.map(|wire| short(wire / seconds))),
        or_dash(utilisation.map(|part| format!("{:.0}%", part * 100.0))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(messages: u64, wire: Option<u64>, before: Option<(Status, Duration)>) -> Agent {
        let link = LinkStatus {
            peer: "b".into(),
            rail: "tcp eth0".into(),
            state: "up".into(),
            streams: 3,
            messages_sent: messages,
            batches_sent: messages / 2,
            payload_bytes_sent: messages * 50,
            wire_bytes_sent: wire,
            ..LinkStatus::default()
        };
        let status = Status { pid: 9, links: vec![link], ..Status::default() };
        Agent { value: Value::Null, status, asked: Instant::now(), before }
    }

    #[test]
    fn links_are_shown_with_totals_or_speeds() {
        let first = agent(1000, Some(100_000), None);
        let text = table(&first);
        assert!(text.contains("2.0") && text.contains("50%") && text.contains("1000"), "{text}");
        let second = agent(3000, Some(400_000), Some((first.status, Duration::from_secs(2))));
        let row = row(&second, &second.status.links[0]);
        assert_eq!(row[4..7], ["1000", "2.0", "50000"]);
        assert_eq!(row[8..], ["150k", "33%"]);
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let text = table(&agent(0, None, None));
        assert!(text.lines().last().is_some_and(|line| line.ends_with('-')), "{text}");
        let none = Agent { status: Status::default(), ..agent(0, None, None) };
        assert!(table(&none).contains("no links"));
    }
}
