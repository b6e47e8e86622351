//! `convoy trace`: what the streams of a process do, as lines or as a file for Wireshark.
//!
//! Not here: switching events on and reading them ([`tap`]), lines ([`lines`]) and files ([`pcapng`]).

mod lines;
mod pcapng;
mod tap;

use crate::cli::Trace;
use crate::{Failure, Outcome};
use convoy_runtime::config;
use convoy_runtime::trace::wire::{Detail, Event, NAME_BYTES, Place};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tap::Tap;

/// Exit status: it cannot be traced.
const NONE: u8 = 1;
/// How long to wait when nothing has come.
const PAUSE: Duration = Duration::from_millis(2);

/// An event as it was read.
#[derive(Debug)]
pub(crate) struct Record {
    /// Since 1970.
    time: Duration,
    event: Event,
    place: Place,
    position: u64,
    detail: Detail,
    number: u64,
    thread: u32,
    /// Payload of a frame, words of a reason, or the addresses of a stream.
    bytes: Vec<u8>,
}

/// What a stream is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    local: SocketAddr,
    peer: SocketAddr,
    /// Process at the other end, or the agent.
    process: u32,
}

impl Name {
    /// From the bytes of [`Event::Name`].
    fn decode(bytes: &[u8], process: u32) -> Option<Self> {
        let (local, peer) = bytes.get(..NAME_BYTES)?.split_at(NAME_BYTES / 2);
        let address = |part: &[u8]| {
            let (address, port) = part.split_at_checked(16)?;
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?);
            let port = u16::from_be_bytes(port.try_into().ok()?);
            Some(SocketAddr::new(IpAddr::V6(address).to_canonical(), port))
        };
        Some(Self { local: address(local)?, peer: address(peer)?, process })
    }
}

/// Where events go.
trait Sink {
    /// Takes an event, with the name of its stream where that is known.
    fn take(&mut self, record: &Record, name: Option<&Name>) -> Result<(), Failure>;
    /// So many parts of events were overwritten before they could be read.
    fn lost(&mut self, parts: u64) -> Result<(), Failure>;
    /// What was taken is to be seen by others now.
    fn flush(&mut self) -> Result<(), Failure>;
}

pub(crate) fn trace(options: &Trace) -> Outcome {
    config::load();
    let mut sink: Box<dyn Sink> = match &options.write {
        Some(path) => Box::new(pcapng::File::create(path, options.pid, options.bytes)?),
        None => Box::new(lines::Lines::default()),
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::new(NONE, format!("cannot catch signals: {error}")))?;
    }
    let mut tap = Tap::open(options.pid, options.bytes)?;
    let end = options.seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let over = || stop.load(Ordering::Relaxed) || end.is_some_and(|end| Instant::now() >= end);
    let result = follow(&mut tap, sink.as_mut(), over);
    drop(tap);
    result.and(sink.flush()).map(|()| 0)
}

fn follow(tap: &mut Tap, sink: &mut dyn Sink, over: impl Fn() -> bool) -> Result<(), Failure> {
    let clock = Clock::new();
    let mut names = HashMap::new();
    loop {
        // Looked at before the last read: what happened until then is in it.
        let last = over() || !tap.lives();
        let batch = tap.read();
        if batch.lost > 0 {
            sink.lost(batch.lost)?;
        }
        for mut record in batch.records {
            record.time = clock.since_epoch(record.time);
            if record.event == Event::Name
                && let Some(name) = Name::decode(&record.bytes, record.number as u32)
            {
                names.insert(record.place, name);
            }
            sink.take(&record, names.get(&record.place))?;
            if matches!(record.event, Event::Close) {
                names.remove(&record.place);
            }
        }
        if last && !batch.more {
            return Ok(());
        }
        if !batch.more {
            sink.flush()?;
            if tap.failed() {
                return Err(Failure::new(NONE, "the process has no memory for its events; its log says why"));
            }
            tap.renew();
            std::thread::sleep(PAUSE);
        }
    }
}

/// Turns CLOCK_MONOTONIC into time since 1970.
struct Clock(Duration);

impl Clock {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(now.saturating_sub(Duration::from_nanos(convoy_runtime::sys::now_ns())))
    }

    fn since_epoch(&self, monotonic: Duration) -> Duration {
        self.0.saturating_add(monotonic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_addresses() {
        let mut bytes = [0u8; NAME_BYTES];
        bytes[10..18].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1, 0x18, 0xeb]);
        bytes[33] = 1;
        bytes[35] = 80;
        let name = Name::decode(&bytes, 7).unwrap();
        assert_eq!(
            (name.local.to_string(), name.peer.to_string()),
            ("127.0.0.1:6379".into(), "[::1]:80".into())
        );
        assert!(Name::decode(&bytes[1..], 7).is_none());
    }
}
