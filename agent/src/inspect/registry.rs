//! What the processes of a user share: offers, channels and bells, from a mapping of the registry or from its file.

use super::memory::word;
use super::state::View;
use convoy_runtime::anchor::Found;
use serde::Serialize;
use std::io::Read;

/// Larger registries than this are none.
const MOST_BYTES: u64 = 8 << 20;

/// A process as the registry names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Who {
    pub(crate) pid: u32,
    /// Low 32 bits of its start, in clock ticks since the machine's.
    pub(crate) start: u32,
}

/// A bell: a FIFO by which threads of a process sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Bell {
    pub(crate) number: u16,
    pub(crate) owner: u32,
    /// Threads that sleep or are about to.
    pub(crate) sleepers: u32,
    /// Process that rings, until the woken thread has looked; 0 = none.
    pub(crate) rung: u32,
}

/// An end that waits to be found, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Offer {
    pub(crate) owner: u32,
    /// waiting, or matched by its owner.
    pub(crate) state: &'static str,
    pub(crate) ports: [u16; 2],
    pub(crate) channel: u64,
    pub(crate) slot: u32,
}

/// A channel between two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Record {
    pub(crate) serial: u64,
    pub(crate) sides: [Who; 2],
    /// Side 0's descriptor of the segment.
    pub(crate) descriptor: i32,
}

/// The entries of a registry.
#[derive(Debug, Serialize)]
pub(crate) struct Registry {
    /// Process that holds the lock.
    pub(crate) lock: Option<u32>,
    pub(crate) offers: Vec<Offer>,
    pub(crate) channels: Vec<Record>,
    pub(crate) bells: Vec<Bell>,
}

impl Who {
    pub(crate) fn of(word: u64) -> Self {
        Self { pid: (word >> 32) as u32, start: word as u32 }
    }
}

impl Registry {
    /// Entries of one process.
    pub(crate) fn only_of(self, pid: u32) -> Self {
        Self {
            lock: self.lock,
            offers: self.offers.into_iter().filter(|offer| offer.owner == pid).collect(),
            channels: self
                .channels
                .into_iter()
                .filter(|record| record.sides.iter().any(|side| side.pid == pid))
                .collect(),
            bells: self.bells.into_iter().filter(|bell| bell.owner == pid).collect(),
        }
    }
}

/// The registry that a process has mapped there.
pub(super) fn read(view: &View<'_>, address: u64) -> Option<Registry> {
    let size = view.found.in_registry.size;
    (size <= MOST_BYTES).then_some(())?;
    let mut bytes = Vec::new();
    if let Some(file) = view.memory.file_at(address) {
        file.take(size).read_to_end(&mut bytes).ok()?;
    }
    if bytes.len() as u64 != size {
        bytes = view.memory.read(address, size as usize)?;
    }
    decode(&bytes, &view.found)
}

/// The same from a registry's file, which is of this version by its name.
pub(crate) fn of_file(bytes: &[u8]) -> Option<Registry> {
    let found = Found::HERE;
    (bytes.len() as u64 == found.in_registry.size).then(|| decode(bytes, &found))?
}

fn decode(bytes: &[u8], found: &Found) -> Option<Registry> {
    let layout = found.in_registry;
    let entries = |start: u64, count: u64, size: u64| {
        let place = move |index: u64| start.checked_add(index.checked_mul(size)?)?.try_into().ok();
        (0..count.min(1 << 16)).map_while(place)
    };
    let lock = word(bytes, layout.lock as usize)?;
    Some(Registry {
        lock: (lock != 0).then(|| Who::of(lock).pid),
        offers: entries(layout.offers, found.offers, found.in_offer.size)
            .filter_map(|at| offer(bytes, at, found))
            .collect(),
        channels: entries(layout.channels, found.registry_channels, found.in_record.size)
            .filter_map(|at| record(bytes, at, found))
            .collect(),
        bells: (0..)
            .zip(entries(layout.bells, found.bells, found.in_bell.size))
            .filter_map(|(number, at)| bell(bytes, at, number, found))
            .collect(),
    })
}

/// The word at a field of an entry.
fn field(bytes: &[u8], entry: usize, offset: u64) -> Option<u64> {
    word(bytes, entry.checked_add(usize::try_from(offset).ok()?)?)
}

fn half(bytes: &[u8], entry: usize, offset: u64) -> Option<u32> {
    let at = entry.checked_add(usize::try_from(offset).ok()?)?;
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn offer(bytes: &[u8], at: usize, found: &Found) -> Option<Offer> {
    let layout = found.in_offer;
    let state = match half(bytes, at, layout.state)? {
        1 => "waiting",
        2 => "matched",
        _ => return None,
    };
    let ports = field(bytes, at, layout.key.checked_add(4 * 8)?)?;
    Some(Offer {
        owner: Who::of(field(bytes, at, layout.owner)?).pid,
        state,
        ports: [(ports >> 16) as u16, ports as u16],
        channel: field(bytes, at, layout.channel)?,
        slot: half(bytes, at, layout.slot)?,
    })
}

fn record(bytes: &[u8], at: usize, found: &Found) -> Option<Record> {
    let layout = found.in_record;
    let serial = field(bytes, at, layout.serial).filter(|serial| *serial != 0)?;
    let side = |offset: u64| field(bytes, at, offset).map(Who::of);
    Some(Record {
        serial,
        sides: [side(layout.creator)?, side(layout.other)?],
        descriptor: field(bytes, at, layout.descriptor)? as i32,
    })
}

fn bell(bytes: &[u8], at: usize, number: u16, found: &Found) -> Option<Bell> {
    let layout = found.in_bell;
    let owner = field(bytes, at, layout.owner).filter(|owner| *owner != 0)?;
    Some(Bell {
        number,
        owner: Who::of(owner).pid,
        sleepers: half(bytes, at, layout.sleepers)?,
        rung: half(bytes, at, layout.rung)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_and_sorted_out() {
        let found = Found::HERE;
        let mut bytes = vec![0u8; found.in_registry.size as usize];
        let mut put = |at: u64, value: u64| {
            bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_ne_bytes());
        };
        let record = found.in_registry.channels + 3 * found.in_record.size;
        put(record + found.in_record.serial, 9);
        put(record + found.in_record.creator, 7 << 32 | 5);
        put(record + found.in_record.other, 8 << 32 | 6);
        let bell = found.in_registry.bells + 11 * found.in_bell.size;
        put(bell + found.in_bell.owner, 8 << 32 | 6);
        put(bell + found.in_bell.sleepers, 2);
        let registry = of_file(&bytes).unwrap();
        assert_eq!(registry.channels[0].sides.map(|side| side.pid), [7, 8]);
        assert_eq!(registry.bells, [Bell { number: 11, owner: 8, sleepers: 2, rung: 0 }]);
        let seven = registry.only_of(7);
        assert_eq!((seven.channels.len(), seven.bells.len()), (1, 0));
        assert!(of_file(&bytes[1..]).is_none());
    }

    #[test]
    fn garbage_is_no_danger() {
        let found = Found::HERE;
        let registry = of_file(&vec![0xff; found.in_registry.size as usize]).unwrap();
        assert_eq!(registry.offers.len(), 0);
        assert_eq!(registry.channels.len() as u64, found.registry_channels);
    }
}
