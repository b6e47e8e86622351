//! The channels of this process: making and attaching one, finding it again, freeing it long after its end.
//! May contain `unsafe`: the list holds leaked boxes, which threads use without a lock.

use super::{Channel, FAR, Way};
use crate::config::settings;
use crate::lock::Mutex;
use crate::process::{self, Identity};
use crate::registry::{Answer, Found, Locked};
use crate::room::{self, Words};
use crate::session::Session;
use crate::shm::lock;
use crate::shm::party::Party;
use crate::shm::segment::{Geometry, Segment, SlotState};
use crate::{memory, stats, sys, table};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// How many streams one channel carries at a time.
const SLOTS: u32 = 16384;
const BLOCK_BYTES: u32 = 16384;
const BLOCKS: u32 = 256;
/// Lanes to an agent are larger: what the other host has not got yet stays in them.
const AGENT_RING_BYTES: u32 = 1 << 20;
/// Serial of channels that no registry knows.
pub const AGENT_SERIAL: u64 = u64::MAX;
/// How many channels a process can have; an index stays valid for the life of the process.
pub const MOST: usize = 4096;

static CHANNELS: [AtomicPtr<Channel>; MOST] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MOST];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// For [`crate::anchor`].
pub const fn anchored() -> &'static [AtomicPtr<Channel>; MOST] {
    &CHANNELS
}

#[inline]
pub fn at(index: u32) -> Option<&'static Channel> {
    // SAFETY: entries are leaked boxes or null.
    unsafe { CHANNELS.get(index as usize)?.load(Ordering::Acquire).as_ref() }
}

/// All channels this process has ever had.
pub fn all() -> impl Iterator<Item = &'static Channel> {
    (0..COUNT.load(Ordering::Acquire) as u32).filter_map(at)
}

/// The process ends: its other threads leave the channels' locks. Their death there would end a channel, for the peer and for
/// other processes that have it.
pub fn at_exit() {
    lock::last_thread();
    for channel in all().filter(|channel| channel.usable()) {
        channel.party.shared().send_lock.await_free();
        channel.party.shared().receive_lock.0.await_free();
    }
}

/// The two ends of the channel to `peer`, as (serial, index); makes or attaches it if need be. The caller holds
/// the registry's lock and the slow lock.
pub fn with_peer(session: &Session, locked: &Locked<'_>, peer: Identity) -> sys::Answer<&'static Channel> {
    let own = session.identity;
    if let Some(known) = all().find(|channel| {
        channel.peer == peer
            && channel.maker == own
            && channel.usable()
            && channel.side == 0
            && !channel.leads_to_agent()
    }) {
        return Ok(known);
    }
    match locked.channel_between(own, peer) {
        Some(found) if found.sides[0] != own => {
            known(own, peer, found.serial).map_or_else(|| attach(&found), Ok)
        }
        _ => create(own, peer, locked),
    }
}

/// The channel an answered offer names; attaches if need be.
pub fn of_answer(session: &Session, peer: Identity, serial: u64) -> sys::Answer<&'static Channel> {
    let own = session.identity;
    if let Some(channel) = known(own, peer, serial) {
        return Ok(channel);
    }
    let locked = session.registry.lock().ok_or(libc::EBUSY)?;
    // One that this process has made is attached by the peer only.
    let is_peers = |found: &Found| found.serial == serial && found.sides == [peer, own];
    let found = locked.channel_between(own, peer).filter(is_peers).ok_or(libc::ENOENT)?;
    drop(locked);
    attach(&found)
}

/// The end of that channel which this process has. Not by the serial alone: the registry may have been made to give one twice.
fn known(own: Identity, peer: Identity, serial: u64) -> Option<&'static Channel> {
    let mut sides = all().filter(|channel| {
        channel.serial == serial && channel.peer == peer && channel.maker == own && channel.usable()
    });
    // With both ends in one process the answer came from side 0; the offer's owner is side 1.
    if peer == own { sides.find(|channel| channel.side == 1) } else { sides.next() }
}

/// The answered offer of the connection with that mark is given up: the slot may be used again.
pub fn refuse(answer: &Answer, mark: u64) {
    let named = all().find(|channel| channel.serial == answer.channel && channel.peer == answer.peer);
    // A slot that is in use, or for another connection, is not the answerer's to give away.
    if let Some(channel) = named
        && answer.slot < channel.party.slots()
        && channel.party.stream(answer.slot).open.load(Ordering::Acquire) == 0
        && channel.peer_line(answer.slot).has_mark(mark)
    {
        channel.own_line(answer.slot).set_state(answer.generation, SlotState::Closed);
    }
}

fn create(own: Identity, peer: Identity, locked: &Locked<'_>) -> sys::Answer<&'static Channel> {
    if !process::own().alive() || !sys::dumpable() && sys::geteuid() != 0 {
        return Err(libc::EACCES);
    }
    let geometry = Geometry {
        ring_bytes: settings().ring_bytes,
        slots: SLOTS,
        block_bytes: BLOCK_BYTES,
        blocks: BLOCKS,
    };
    let serial = locked.next_serial();
    let sides = [own, peer];
    let hand = sys::hand();
    let (segment, fd) = Segment::create(geometry, serial, sides)?;
    let descriptor = table::adopt(fd)?;
    drop(hand);
    let channel = register(segment, 0, serial, peer, descriptor, None)?;
    if !locked.enter_channel(Found { serial, sides, descriptor }) {
        channel.close_descriptor();
        return Err(libc::ENOSPC);
    }
    stats::process().channels_created.add(1);
    Ok(channel)
}

/// A new channel to the agent behind a Unix socket, which is the channel's from then on. `introduce` gives the agent the descriptor of
/// the segment; before that the channel is in no list, so that nobody gets at the way to an agent that is not there after all.
pub fn with_agent(
    own: Identity,
    agent: Identity,
    socket: i32,
    introduce: impl FnOnce(i32) -> sys::Answer<()>,
) -> sys::Answer<&'static Channel> {
    let geometry = Geometry {
        ring_bytes: settings().ring_bytes.max(AGENT_RING_BYTES),
        slots: SLOTS,
        block_bytes: BLOCK_BYTES,
        blocks: BLOCKS,
    };
    let hand = sys::hand();
    let (segment, fd) = Segment::create(geometry, AGENT_SERIAL, [own, Identity::NOBODY])?;
    let introduced = introduce(fd);
    let _ = sys::close(fd);
    drop(hand);
    // SAFETY: nobody here knows the mapping.
    introduced.inspect_err(|_| unsafe { segment.unmap() })?;
    let channel = register(segment, 0, AGENT_SERIAL, agent, -1, Some(Way::new(socket)))?;
    stats::process().channels_created.add(1);
    Ok(channel)
}

fn attach(found: &Found) -> sys::Answer<&'static Channel> {
    let [creator, _] = found.sides;
    let attached = |fd| Segment::attach(fd, found.serial, found.sides);
    let segment = Session::with_open_of(creator, found.descriptor, attached)?;
    let channel = register(segment?, 1, found.serial, creator, -1, None)?;
    channel.segment.side(1).attached.store(1, Ordering::Release);
    stats::process().channels_attached.add(1);
    Ok(channel)
}

pub(super) fn register(
    segment: Segment,
    side: usize,
    serial: u64,
    peer: Identity,
    fd: i32,
    way: Option<Way>,
) -> sys::Answer<&'static Channel> {
    // SAFETY: nobody knows the mapping.
    let forget = |_: &i32| unsafe { segment.unmap() };
    let party = Party::create(segment.geometry.slots, memory::queue_bytes()).inspect_err(forget)?;
    let entered = Channel::new(segment, party, side, serial, peer).and_then(|mut channel| {
        (channel.descriptor, channel.way) = (AtomicI32::new(fd), way);
        enter(channel)
    });
    entered.inspect_err(|errno| {
        forget(errno);
        // SAFETY: as above.
        unsafe { party.unmap() };
    })
}

fn enter(mut channel: Channel) -> sys::Answer<&'static Channel> {
    let (index, place) = free_place().ok_or(libc::ENOSPC)?;
    channel.index = index as u32;
    let channel = room::boxed(channel)?;
    FAR.fetch_or(channel.way.is_some(), Ordering::Relaxed);
    channel.lend_all_blocks();
    bury(place.swap(Box::into_raw(channel), Ordering::AcqRel));
    COUNT.fetch_max(index + 1, Ordering::Release);
    at(index as u32).ok_or(libc::ENOSPC)
}

impl Channel {
    /// One that no list has yet.
    pub(super) fn new(
        segment: Segment,
        party: Party,
        side: usize,
        serial: u64,
        peer: Identity,
    ) -> sys::Answer<Self> {
        Ok(Self {
            segment,
            party,
            side,
            serial,
            peer,
            maker: process::own(),
            index: 0,
            descriptor: AtomicI32::new(-1),
            way: None,
            streams: AtomicU32::new(0),
            sockets: Words::new(segment.geometry.slots as usize)?,
            reserved: Words::new(segment.geometry.slots as usize)?,
            retired: AtomicBool::new(false),
        })
    }
}

/// A place without a channel, or with one that has ended.
fn free_place() -> Option<(usize, &'static AtomicPtr<Channel>)> {
    all().filter(|channel| channel.streams.load(Ordering::Relaxed) == 0).for_each(Channel::retire_if_dead);
    let ended = all().find(|channel| channel.retired.load(Ordering::Relaxed));
    let index = ended.map_or(COUNT.load(Ordering::Relaxed), |channel| channel.index as usize);
    Some((index, CHANNELS.get(index)?))
}

/// Ended channels that a thread may still look at, with the time of their end.
static BURIED: Mutex<Vec<(u64, usize)>> = Mutex::new(Vec::new());
/// No call lasts this long inside a channel without looking whether it has ended.
const MOURNING_NS: u64 = 10_000_000_000;

/// Frees channels that ended long ago; remembers `ended`.
fn bury(ended: *mut Channel) {
    let now = sys::now_ns();
    let mut buried = BURIED.lock();
    buried.retain(|(since, channel)| {
        if now - since < MOURNING_NS {
            return true;
        }
        // SAFETY: the pointer came from a box and left the table long ago.
        let channel = unsafe { Box::from_raw(*channel as *mut Channel) };
        // SAFETY: as above: no thread uses the memory any more.
        unsafe {
            channel.segment.unmap();
            channel.party.unmap();
        }
        false
    });
    if !ended.is_null() {
        buried.push((now, ended as usize));
    }
}

/// The descriptor of a segment is wanted by the program: the segment can no longer be attached through it.
pub fn moved(fd: i32) -> bool {
    if all().any(|channel| channel.move_way(fd)) {
        return true;
    }
    let mut found = all().filter(|channel| channel.descriptor.load(Ordering::Relaxed) == fd);
    found.next().is_some_and(|channel| {
        channel.descriptor.store(-1, Ordering::Relaxed);
        sys::close(fd).is_ok()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::pair::GEOMETRY;
    use super::*;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    fn socket() -> i32 {
        table::adopt(UnixStream::pair().unwrap().0.into_raw_fd()).unwrap()
    }

    fn agent() -> &'static Channel {
        let own = process::remember();
        with_agent(own, own, socket(), |_| Ok(())).unwrap()
    }

    /// Its socket is closed by whoever has made it, and the number given to another file.
    #[test]
    fn an_agent_that_is_gone_when_it_is_told_of_its_channel_leaves_none() {
        let own = process::remember();
        let gone = with_agent(own, own, socket(), |_| Err(libc::EPIPE));
        assert_eq!(gone.err(), Some(libc::EPIPE));
        assert_eq!(all().count(), 0);
    }

    #[test]
    fn channels_of_one_serial_are_told_apart_by_their_peers() {
        let own = process::remember();
        let peers = [1, 2].map(|process| Identity(process << 32 | 1));
        let channels = peers.map(|peer| {
            let (segment, fd) = Segment::create(GEOMETRY, 5, [own, peer]).unwrap();
            sys::close(fd).unwrap();
            let channel = register(segment, 0, 5, peer, -1, None).unwrap();
            // Else the next would take its place: nobody lives behind these.
            channel.streams.fetch_add(1, Ordering::Relaxed);
            channel
        });
        for (peer, channel) in peers.into_iter().zip(channels) {
            assert!(core::ptr::eq(known(own, peer, 5).unwrap(), channel));
        }
        assert!(known(own, own, 5).is_none());
    }

    /// The listener finds the way to an agent that is gone here, and has a look at the channel until it has closed it.
    #[test]
    fn a_channel_keeps_its_place_until_the_way_is_closed() {
        let first = agent();
        first.lose_agent();
        let second = agent();
        assert_eq!((first.index, second.index), (0, 1), "there is a way to be closed");
        first.close_way();
        let third = agent();
        assert_eq!(third.index, 0);
        let numbers = [first, second, third].map(|channel| channel.way().unwrap().number);
        assert_eq!(numbers, [1, 2, 3], "what was offered to the first is not the third's");
    }
}
