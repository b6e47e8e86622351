//! Events as lines, one each, in the manner of tcpdump(8). Times are UTC.

use super::{Name, Record, Sink};
use crate::Failure;
use crate::output::print;
use convoy_runtime::trace::wire::{Event, Place};
use std::fmt::Write;
use std::time::Duration;

/// Lines that wait to be printed.
#[derive(Default)]
pub(super) struct Lines(String);

/// So many bytes are printed at once.
const MOST_WAITING: usize = 1 << 16;

impl Sink for Lines {
    fn take(&mut self, record: &Record, name: Option<&Name>) -> Result<(), Failure> {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{} {}", clock(record.time), line(record, name));
        if self.0.len() > MOST_WAITING { self.flush() } else { Ok(()) }
    }

    fn lost(&mut self, parts: u64) -> Result<(), Failure> {
        let _ = writeln!(self.0, "({parts} events, or parts of them, came too fast and are lost)");
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { print(&std::mem::take(&mut self.0)) }
    }
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs() % 86400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:09}", seconds % 60, time.subsec_nanos())
}

fn line(record: &Record, name: Option<&Name>) -> String {
    let stream = match (name, record.place) {
        (Some(name), _) => format!("{} > {}", name.local, name.peer),
        (None, Place { channel, slot: Place::NO_SLOT, .. }) => format!("channel {channel}"),
        (None, Place { channel, slot, generation }) => format!("channel {channel} slot {slot}.{generation}"),
    };
    format!("{stream}: {}", words(record, name))
}

/// What happened, in words.
pub(super) fn words(record: &Record, name: Option<&Name>) -> String {
    let (position, length) = (record.position, record.detail.length);
    let text = || String::from_utf8_lossy(&record.bytes).into_owned();
    match record.event {
        Event::Name => {
            let Place { channel, slot, generation } = record.place;
            let peer = name.map(|name| name.process).unwrap_or_default();
            format!(
                "descriptor {}, slot {slot}.{generation} of channel {channel} to process {peer}",
                record.detail.descriptor
            )
        }
        Event::Open => "open".to_owned(),
        Event::Sent => format!("sent {} {length} at {position}{}", kind(record), payload(record)),
        Event::Received => format!("received {} {length} at {position}{}", kind(record), payload(record)),
        Event::Switch => format!("switch {} to the {} at {position}", record.number, path(record)),
        Event::Followed => format!("followed switch {} to the {} at {position}", record.number, path(record)),
        Event::Credit => format!("credit up to {position}"),
        Event::Demote => format!("back to the kernel: {}", text()),
        Event::Close if record.detail.kind != 0 => "close with unread bytes: reset".to_owned(),
        Event::Close => "close".to_owned(),
        Event::Reset => format!("reset: {}", text()),
        Event::KernelSent => format!("sent {length} through the kernel"),
        Event::KernelReceived => format!("received {length} from the kernel"),
    }
}

fn kind(record: &Record) -> &'static str {
    if record.detail.kind == convoy_aggregator::wire::Kind::Block as u8 { "block" } else { "data" }
}

fn path(record: &Record) -> &'static str {
    if record.detail.kind == 0 { "kernel" } else { "channel" }
}

fn payload(record: &Record) -> String {
    if record.bytes.is_empty() {
        return String::new();
    }
    format!(" \"{}\"", record.bytes.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use convoy_runtime::trace::wire::Detail;

    fn record(event: Event) -> Record {
        Record {
            time: Duration::new(86400 + 3661, 5),
            event,
            place: Place { channel: 1, slot: 2, generation: 3 },
            position: 40,
            detail: Detail { length: 6, descriptor: 9, kind: 2 },
            number: 1,
            thread: 4,
            bytes: Vec::new(),
        }
    }

    #[test]
    fn lines_name_stream_kind_length_and_position() {
        let name =
            Name { local: "10.0.0.1:80".parse().unwrap(), peer: "10.0.0.2:99".parse().unwrap(), process: 5 };
        let mut sent = record(Event::Sent);
        assert_eq!(line(&sent, Some(&name)), "10.0.0.1:80 > 10.0.0.2:99: sent data 6 at 40");
        sent.bytes = b"PING\r\n".to_vec();
        assert_eq!(line(&sent, None), "channel 1 slot 2.3: sent data 6 at 40 \"PING\\r\\n\"");
        assert_eq!(clock(sent.time), "01:01:01.000000005");
        let mut reset = record(Event::Reset);
        reset.bytes = b"impossible cursor".to_vec();
        reset.place.slot = Place::NO_SLOT;
        assert_eq!(line(&reset, None), "channel 1: reset: impossible cursor");
    }
}
