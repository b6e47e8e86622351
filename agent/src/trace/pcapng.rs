//! Events as a pcapng file (draft-ietf-opsawg-pcapng): one packet for each, link type USER0, times in nanoseconds. What a packet
//! holds is written down in docs/debugging.md, and taken apart by dist/wireshark/convoy.lua.

use super::lines::words;
use super::{NONE, Name, Record, Sink};
use crate::Failure;
use convoy_runtime::trace::wire::Event;
use std::fs::{File as Plain, OpenOptions};
use std::io::{BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const STATISTICS: u32 = 5;
const LINKTYPE_USER0: u16 = 147;
/// Options of blocks.
const COMMENT: u16 = 1;
const APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFDROP: u16 = 5;
/// Version of what packets hold.
const VERSION: u8 = 1;
/// Bytes of a packet in front of payload or reason.
pub(super) const HEAD: usize = 84;

/// A file under construction.
pub(super) struct File {
    out: BufWriter<Plain>,
    pid: u32,
    lost: u64,
    last: u64,
}

impl File {
    /// Makes the file, for this user's eyes only, because payload may be in it.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn create(path: &Path, pid: u32, payload: u16) -> Result<Self, Failure> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file =
            file.map_err(|error| Failure::new(NONE, format!("cannot write '{}': {error}", path.display())))?;
        let mut file = Self { out: BufWriter::new(file), pid, lost: 0, last: 0 };
        let mut section = Vec::new();
        section.extend(0x1a2b_3c4d_u32.to_le_bytes());
        section.extend([1, 0, 0, 0]);
        section.extend(u64::MAX.to_le_bytes());
        option(&mut section, APPLICATION, concat!("convoy trace ", env!("CARGO_PKG_VERSION")).as_bytes());
        end_of_options(&mut section);
        file.block(SECTION, &section)?;
        let mut interface = Vec::new();
        interface.extend(LINKTYPE_USER0.to_le_bytes());
        interface.extend([0, 0]);
        interface.extend((HEAD as u32 + u32::from(payload).max(256)).to_le_bytes());
        option(&mut interface, IF_NAME, format!("process {pid}").as_bytes());
        option(&mut interface, IF_TSRESOL, &[9]);
        end_of_options(&mut interface);
        file.block(INTERFACE, &interface)?;
        file.flush()?;
        Ok(file)
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> Result<(), Failure> {
        let length = (body.len() as u32 + 12).to_le_bytes();
        let parts: [&[u8]; 4] = [&kind.to_le_bytes(), &length, body, &length];
        parts.into_iter().try_for_each(|part| self.out.write_all(part)).map_err(unwritten)
    }

    /// How many events were lost, as of now.
    fn statistics(&mut self) -> Result<(), Failure> {
        let mut body = Vec::new();
        body.extend(0u32.to_le_bytes());
        body.extend(halves(self.last));
        option(&mut body, ISB_IFDROP, &self.lost.to_le_bytes());
        end_of_options(&mut body);
        self.block(STATISTICS, &body)
    }
}

impl Sink for File {
    fn take(&mut self, record: &Record, name: Option<&Name>) -> Result<(), Failure> {
        let packet = packet(self.pid, record, name);
        let whole = match record.event {
            Event::Sent | Event::Received => HEAD as u32 + record.detail.length,
            _ => packet.len() as u32,
        };
        self.last = record.time.as_nanos() as u64;
        let mut body = Vec::new();
        body.extend(0u32.to_le_bytes());
        body.extend(halves(self.last));
        body.extend((packet.len() as u32).to_le_bytes());
        body.extend(whole.to_le_bytes());
        padded(&mut body, &packet);
        if record.event == Event::Name
            && let Some(Name { local, peer, .. }) = name
        {
            let comment = format!("stream {local} > {peer}: {}", words(record, name));
            option(&mut body, COMMENT, comment.as_bytes());
        }
        option(&mut body, EPB_FLAGS, &(if outgoing(record.event) { 2u32 } else { 1 }).to_le_bytes());
        end_of_options(&mut body);
        self.block(PACKET, &body)
    }

    fn lost(&mut self, parts: u64) -> Result<(), Failure> {
        self.lost += parts;
        self.statistics()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(unwritten)
    }
}

fn unwritten(error: std::io::Error) -> Failure {
    Failure::new(NONE, format!("cannot write the file: {error}"))
}

/// A time as blocks have it: upper half first.
fn halves(time: u64) -> [u8; 8] {
    let [upper, lower] = [(time >> 32) as u32, time as u32].map(u32::to_le_bytes);
    let mut both = [0; 8];
    both[..4].copy_from_slice(&upper);
    both[4..].copy_from_slice(&lower);
    both
}

fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn outgoing(event: Event) -> bool {
    !matches!(event, Event::Received | Event::KernelReceived | Event::Followed)
}

/// All numbers big-endian.
fn packet(pid: u32, record: &Record, name: Option<&Name>) -> Vec<u8> {
    let mut out = vec![VERSION, record.event as u8, record.detail.kind, u8::from(outgoing(record.event))];
    for number in [pid, record.thread, record.place.channel, record.place.slot] {
        out.extend(number.to_be_bytes());
    }
    out.extend([record.place.generation, 0]);
    out.extend(record.detail.descriptor.to_be_bytes());
    out.extend(record.position.to_be_bytes());
    out.extend(record.detail.length.to_be_bytes());
    out.extend((record.number as u32).to_be_bytes());
    for end in [name.map(|name| name.local), name.map(|name| name.peer)] {
        out.extend(address(end));
    }
    out.extend(name.map_or(0, |name| name.process).to_be_bytes());
    // The addresses are in front already.
    let bytes = if record.event == Event::Name { &[][..] } else { &record.bytes };
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
    out
}

fn address(end: Option<SocketAddr>) -> [u8; 18] {
    let mut bytes = [0; 18];
    if let Some(end) = end {
        let address = match end.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        bytes[..16].copy_from_slice(&address.octets());
        bytes[16..].copy_from_slice(&end.port().to_be_bytes());
    }
    bytes
}
