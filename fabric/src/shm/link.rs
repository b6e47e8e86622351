//! One link over shared memory.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::channel::{Channel, Message, Received};
use super::ring::{CAPACITY, Ring, map};
use crate::region::Region;
use crate::{Event, LinkId, PostError, Write};

/// Pieces of memory that a peer may have passed over.
const TARGETS: usize = 1024;

/// Why a write was not carried out.
pub enum Refused {
    Error(PostError),
    /// The link goes down.
    Broken(&'static str),
}

/// A write that is not reported.
struct Outstanding {
    /// The number of the immediate that has to be heard first.
    position: u32,
    context: Option<u64>,
}

impl Outstanding {
    /// The numbers wrap around; those compared are near each other.
    fn is_done(&self, heard: u32) -> bool {
        heard.wrapping_sub(self.position) <= CAPACITY
    }
}

/// How far a link has come.
enum Stage {
    /// For a peer with this token.
    Waiting(u64),
    Asking,
    Up,
}

pub struct Link {
    stage: Stage,
    channel: Option<Channel>,
    ring: Option<Ring>,
    /// What wakes the peer.
    waker: Option<OwnedFd>,
    targets: HashMap<u64, Region>,
    outstanding: VecDeque<Outstanding>,
    told: u32,
    heard: u32,
    /// The peer could not be told of all memory.
    broken: bool,
}

impl Link {
    fn new(stage: Stage) -> Link {
        let (targets, outstanding) = Default::default();
        let (channel, ring, waker) = (None, None, None);
        Link { stage, channel, ring, waker, targets, outstanding, told: 0, heard: 0, broken: false }
    }

    /// A link that lets a peer connect.
    pub fn waiting(token: u64) -> Link {
        Self::new(Stage::Waiting(token))
    }

    /// A link that has asked.
    pub fn asking(channel: Channel, ring: Ring, exports: &[(u64, u64, RawFd)]) -> Link {
        let mut link = Self::new(Stage::Asking);
        link.channel = Some(channel);
        link.ring = Some(ring);
        exports.iter().for_each(|(key, bytes, file)| link.export(*key, *bytes, *file));
        link
    }

    pub fn waits_for(&self, token: u64) -> bool {
        matches!(self.stage, Stage::Waiting(own) if own == token)
    }

    /// Answers a peer; false, and the link goes on waiting, when it has not sent what it must.
    pub fn answer(
        &mut self,
        channel: Channel,
        descriptors: Vec<OwnedFd>,
        waker: RawFd,
        exports: &[(u64, u64, RawFd)],
    ) -> bool {
        let Ok([file, peer]) = <[OwnedFd; 2]>::try_from(descriptors) else { return false };
        let Some(ring) = Ring::join(file.as_fd()) else { return false };
        if !channel.send(Message::Welcome, &[waker]) {
            return false;
        }
        self.ring = Some(ring);
        self.waker = Some(peer);
        self.channel = Some(channel);
        self.stage = Stage::Up;
        exports.iter().for_each(|(key, bytes, file)| self.export(*key, *bytes, *file));
        true
    }

    fn tell(&mut self, message: Message, descriptors: &[RawFd]) {
        if let Some(channel) = &self.channel {
            self.broken |= !channel.send(message, descriptors);
        }
    }

    /// Passes memory over.
    pub fn export(&mut self, key: u64, bytes: u64, file: RawFd) {
        self.tell(Message::Memory { key, bytes }, &[file]);
    }

    /// Memory may not be written to any more.
    pub fn forget(&mut self, key: u64) {
        self.tell(Message::Forget { key }, &[]);
    }

    fn wake(&self) {
        let one = 1_u64;
        if let Some(waker) = &self.waker {
            // SAFETY: eight bytes, as an eventfd wants; if the peer has passed something else, or it is full, that is
            // the peer's loss.
            unsafe { libc::write(waker.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }

    /// Reads what the peer has to say.
    fn listen(&mut self, mut connected: impl FnMut()) -> Result<(), &'static str> {
        loop {
            let Some(channel) = &self.channel else { return Ok(()) };
            match channel.receive() {
                Received::Nothing => return Ok(()),
                Received::End if matches!(self.stage, Stage::Asking) => return Err("the peer has refused"),
                Received::End => return Err("the peer has ended the link"),
                Received::Message(Message::Welcome, descriptors) if matches!(self.stage, Stage::Asking) => {
                    self.waker = descriptors.into_iter().next();
                    self.stage = Stage::Up;
                    connected();
                }
                Received::Message(Message::Memory { key, bytes }, descriptors) => {
                    let bytes = usize::try_from(bytes).map_err(|_| "the peer's memory is too large")?;
                    let file = descriptors.first().filter(|_| self.targets.len() < TARGETS);
                    let region = file.and_then(|file| map(file.as_fd(), bytes));
                    self.targets.insert(key, region.ok_or("the peer's memory cannot be mapped")?);
                }
                Received::Message(Message::Forget { key }, _) => {
                    self.targets.remove(&key);
                }
                Received::Message(..) => return Err("the peer has said what makes no sense"),
            }
        }
    }

    /// Carries out a write.
    pub fn post(
        &mut self,
        write: &Write<'_>,
        source: &Region,
        start: usize,
        length: usize,
        reported: bool,
    ) -> Result<(), Refused> {
        let invalid = |reason| Err(Refused::Error(PostError::Invalid(reason)));
        if !matches!(self.stage, Stage::Up) || self.broken {
            return Err(Refused::Error(PostError::Down));
        }
        let end = write.offset.checked_add(length as u64);
        if end.is_none_or(|end| end > write.target.bytes) {
            return invalid("a target outside of the peer's memory");
        }
        if self.outstanding.len() >= CAPACITY as usize {
            return Err(Refused::Error(PostError::Full));
        }
        if !self.targets.contains_key(&write.target.key) && self.listen(|| ()).is_err() {
            return Err(Refused::Broken("the peer has ended the link"));
        }
        let Some(target) = self.targets.get(&write.target.key) else {
            return Err(Refused::Broken("the peer does not know the target"));
        };
        let offset = usize::try_from(write.offset).unwrap_or(usize::MAX);
        if !target.write_from(offset, source, start, length) {
            return Err(Refused::Broken("the target is not inside of the peer's memory"));
        }
        if let (Some(immediate), Some(ring)) = (write.immediate, &mut self.ring) {
            // There is room: not more are outstanding than the ring holds.
            let Some((told, wake)) = ring.tell(immediate) else {
                return Err(Refused::Broken("the peer has counted what cannot be"));
            };
            self.told = told;
            if wake {
                self.wake();
            }
        }
        let context = reported.then_some(write.context);
        self.outstanding.push_back(Outstanding { position: self.told, context });
        Ok(())
    }

    /// Appends what has happened; the reason when the link has ended.
    pub fn poll(&mut self, id: LinkId, events: &mut Vec<Event>) -> Result<(), &'static str> {
        if self.broken {
            return Err("the peer cannot be told of memory");
        }
        // What has arrived comes before the end.
        let listened = match self.stage {
            Stage::Up => Ok(()),
            _ => self.listen(|| events.push(Event::Connected(id))),
        };
        if !matches!(self.stage, Stage::Up) {
            return listened;
        }
        let ended = self.listen(|| ());
        if let Some(ring) = &mut self.ring {
            const NONSENSE: &str = "the peer has counted what cannot be";
            ring.sleep(false, self.heard);
            let arrived = |immediate| events.push(Event::Arrived { link: id, immediate });
            let wake = ring.hear(arrived).ok_or(NONSENSE)?;
            self.heard = ring.heard_by_peer().ok_or(NONSENSE)?;
            if wake {
                self.wake();
            }
        }
        let heard = self.heard;
        while self.outstanding.front().is_some_and(|first| first.is_done(heard)) {
            if let Some(Outstanding { context: Some(context), .. }) = self.outstanding.pop_front() {
                events.push(Event::Written { link: id, context });
            }
        }
        ended
    }

    /// Whether there is nothing to poll.
    pub fn may_sleep(&self) -> bool {
        let done = self.outstanding.front().is_some_and(|first| first.is_done(self.heard));
        !self.broken && !done && self.ring.as_ref().is_none_or(|ring| ring.sleep(true, self.heard))
    }
}
