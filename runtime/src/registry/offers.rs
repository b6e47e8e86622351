//! Offers: one end of a connection waits to be found by the other.

use super::{Locked, OFFERS, PROBES, Registry, hash};
use crate::process::Identity;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const EMPTY: u32 = 0;
const WAITING: u32 = 1;
const MATCHED: u32 = 2;

/// A connection, the same for both ends: network namespace, lower and higher address, both ports; and which of
/// the two this end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub words: [u64; 6],
    /// 0 when this end has the lower address.
    pub end: u32,
}

/// An entry. All but `state` is written under the registry's lock; `state` goes to MATCHED with Release after
/// the answer is written and is polled with Acquire by the owner, who alone empties it.
#[repr(C)]
pub struct Offer {
    state: AtomicU32,
    /// Counts the uses of this entry, so that a stale reference is noticed.
    serial: AtomicU32,
    key: [AtomicU64; 6],
    end: AtomicU32,
    slot: AtomicU32,
    owner: AtomicU64,
    channel: AtomicU64,
    generation: AtomicU32,
}

crate::anchor::layout! {
    /// Where an offer's words lie.
    OfferLayout of Offer { state, key, owner, channel, slot }
}

/// An offer of this process.
#[derive(Clone, Copy, Debug)]
pub struct OfferRef {
    index: u32,
    serial: u32,
}

impl OfferRef {
    /// In one word that is not 0.
    pub fn to_word(self) -> u64 {
        u64::from(self.index + 1) << 32 | u64::from(self.serial)
    }

    pub fn from_word(word: u64) -> Option<Self> {
        ((word >> 32) as u32).checked_sub(1).map(|index| Self { index, serial: word as u32 })
    }
}

/// Where the second to come has opened the stream.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The process that answered.
    pub peer: Identity,
    /// Serial of the channel between the two.
    pub channel: u64,
    pub slot: u32,
    pub generation: u8,
}

/// How an offer stands.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    Waiting,
    Matched(Answer),
    /// Somebody replaced it: another process that holds the same socket.
    Gone,
}

impl Registry {
    fn offer(&self, at: OfferRef) -> &Offer {
        &self.offers[at.index as usize % OFFERS]
    }

    /// One or two loads; needs no lock.
    #[inline]
    pub fn progress(&self, at: OfferRef) -> Progress {
        let offer = self.offer(at);
        let state = offer.state.load(Ordering::Acquire);
        if offer.serial.load(Ordering::Relaxed) != at.serial {
            return Progress::Gone;
        }
        match state {
            WAITING => Progress::Waiting,
            MATCHED => Progress::Matched(Answer {
                peer: Identity(offer.owner.load(Ordering::Relaxed)),
                channel: offer.channel.load(Ordering::Relaxed),
                slot: offer.slot.load(Ordering::Relaxed),
                generation: offer.generation.load(Ordering::Relaxed) as u8,
            }),
            _ => Progress::Gone,
        }
    }

    /// Ends an offer of this process, matched or not. Takes the lock.
    pub fn withdraw(&self, at: OfferRef) {
        let _locked = self.lock();
        let offer = self.offer(at);
        if offer.serial.load(Ordering::Relaxed) == at.serial {
            offer.state.store(EMPTY, Ordering::Release);
        }
    }
}

impl Locked<'_> {
    fn places(&self, key: &Key) -> impl Iterator<Item = (u32, &Offer)> {
        let start = hash(&key.words) as usize;
        (0..PROBES).map(move |step| {
            let index = (start + step) % OFFERS;
            (index as u32, &self.0.offers[index])
        })
    }

    /// The waiting offer of the other end, with its owner.
    pub fn counterpart(&self, key: &Key) -> Option<(OfferRef, Identity)> {
        let (index, offer) = self.places(key).find(|(_, offer)| {
            offer.state.load(Ordering::Acquire) == WAITING
                && offer.end.load(Ordering::Relaxed) != key.end
                && offer.has(key)
        })?;
        let owner = Identity(offer.owner.load(Ordering::Relaxed));
        Some((OfferRef { index, serial: offer.serial.load(Ordering::Relaxed) }, owner))
    }

    /// Enters an offer; replaces one of this same end. Nothing when all places are taken.
    pub fn enter(&self, key: &Key, owner: Identity) -> Option<OfferRef> {
        let same = |offer: &Offer| {
            offer.state.load(Ordering::Acquire) != EMPTY
                && offer.end.load(Ordering::Relaxed) == key.end
                && offer.has(key)
        };
        let free = |offer: &Offer| offer.state.load(Ordering::Acquire) == EMPTY;
        let dead = |offer: &Offer| !Identity(offer.owner.load(Ordering::Relaxed)).alive();
        let place = self
            .places(key)
            .find(|(_, offer)| same(offer))
            .or_else(|| self.places(key).find(|(_, offer)| free(offer)))
            .or_else(|| self.places(key).find(|(_, offer)| dead(offer)));
        let (index, offer) = place?;
        let serial = offer.serial.load(Ordering::Relaxed).wrapping_add(1);
        offer.serial.store(serial, Ordering::Relaxed);
        for (word, value) in offer.key.iter().zip(key.words) {
            word.store(value, Ordering::Relaxed);
        }
        offer.end.store(key.end, Ordering::Relaxed);
        offer.owner.store(owner.0, Ordering::Relaxed);
        offer.state.store(WAITING, Ordering::Release);
        Some(OfferRef { index, serial })
    }

    /// Tells the owner of a waiting offer where its stream is.
    pub fn answer(&self, at: OfferRef, answer: Answer) {
        let offer = self.0.offer(at);
        offer.channel.store(answer.channel, Ordering::Relaxed);
        offer.slot.store(answer.slot, Ordering::Relaxed);
        offer.generation.store(u32::from(answer.generation), Ordering::Relaxed);
        offer.owner.store(answer.peer.0, Ordering::Relaxed);
        offer.state.store(MATCHED, Ordering::Release);
    }

    /// Drops an offer whose owner died.
    pub fn discard(&self, at: OfferRef) {
        self.0.offer(at).state.store(EMPTY, Ordering::Release);
    }
}

impl Offer {
    fn has(&self, key: &Key) -> bool {
        self.key.iter().zip(key.words).all(|(word, value)| word.load(Ordering::Relaxed) == value)
    }
}
