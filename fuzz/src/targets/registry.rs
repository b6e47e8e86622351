//! The file in which ends, channels and bells of a user are entered, while another of the user's processes writes anything
//! into it.

use crate::input::Input;
use crate::memory::{self, Memory};
use convoy_runtime::fuzz::{Answer, Found, Identity, Key, OfferRef, Progress, Registry, remember};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

/// Where the word of the lock is.
const LOCK: u64 = 8;

/// A registry that is used for all runs, and cleared after each.
struct Shared {
    registry: &'static Registry,
    memory: Memory,
    own: Identity,
    _file: OwnedFd,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let file = OwnedFd::from(memory::file(0, false));
        let registry = Registry::open(file.as_raw_fd()).expect("a registry");
        Shared { registry, memory: Memory::map(file.as_raw_fd()), own: remember(), _file: file }
    })
}

pub(super) fn run(bytes: &[u8]) {
    let shared = shared();
    let mut world = World { shared, offers: Vec::new(), scribbled: false, lock_taken: false };
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        world.step(&mut input);
    }
    world.clear();
}

struct World {
    shared: &'static Shared,
    offers: Vec<OfferRef>,
    scribbled: bool,
    lock_taken: bool,
}

fn key(input: &mut Input<'_>) -> Key {
    let choice = input.byte();
    Key { words: [1, 2, 3, 4, 5, u64::from(choice >> 1 & 7)], end: u32::from(choice & 1) }
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let (registry, own) = (self.shared.registry, self.shared.own);
        match input.byte() % 10 {
            0 => {
                let key = key(input);
                if let Some(offer) = registry.lock().and_then(|locked| locked.enter(&key, own)) {
                    assert!(self.scribbled || matches!(registry.progress(offer), Progress::Waiting));
                    self.offers.push(offer);
                }
            }
            1 => self.answer(input),
            2 => {
                for offer in &self.offers {
                    if let Progress::Matched(answer) = registry.progress(*offer) {
                        assert!(self.scribbled || answer.channel == 77, "an answer that nobody gave");
                    }
                }
            }
            3 => {
                if let Some(offer) = self.offers.pop() {
                    registry.withdraw(offer);
                    assert!(self.scribbled || matches!(registry.progress(offer), Progress::Gone));
                }
            }
            4 => self.channel(input),
            5 => {
                if let Some(number) = registry.claim_bell(own) {
                    assert_ne!(number, 0, "0 is no bell");
                    assert_eq!(registry.bell(number).owner.load(Ordering::Relaxed), own.0);
                    registry.bell(number).owner.store(0, Ordering::Relaxed);
                }
            }
            6 => {
                if let Some(place) = registry.begin_spin(own) {
                    assert_eq!(place.swap(0, Ordering::Relaxed), own.0);
                }
            }
            7 => registry.sweep_spinners(),
            _ => self.scribble(input),
        }
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        let key = key(input);
        let Some(locked) = self.shared.registry.lock() else { return };
        let Some((offer, owner)) = locked.counterpart(&key) else { return };
        assert!(self.scribbled || owner == self.shared.own);
        if owner.alive() {
            locked.answer(offer, Answer { peer: self.shared.own, channel: 77, slot: 5, generation: 1 });
        } else {
            locked.discard(offer);
        }
    }

    fn channel(&mut self, input: &mut Input<'_>) {
        let own = self.shared.own;
        let other = Identity(u64::from(input.byte()) << 32 | 1);
        let Some(locked) = self.shared.registry.lock() else { return };
        let serial = locked.next_serial();
        if locked.enter_channel(Found { serial, sides: [own, other], descriptor: 9 }) && !self.scribbled {
            let found = locked.channel_between(other, own).expect("it was just entered");
            assert_eq!((found.sides, found.descriptor), ([own, other], 9));
        }
    }

    fn scribble(&mut self, input: &mut Input<'_>) {
        self.scribbled = true;
        // The head, with lock, serial and places to spin; or anywhere.
        let most = if input.byte() & 1 == 0 { 4096 } else { self.shared.memory.bytes() as u64 };
        let at = (u64::from(input.word()) % most) & !7;
        // Each costs the patience of those who come next: once is enough.
        if at == LOCK && std::mem::replace(&mut self.lock_taken, true) {
            return;
        }
        let word = self.shared.memory.word(at);
        let before = word.load(Ordering::Relaxed);
        let value = input.near(before);
        word.store(value, Ordering::Relaxed);
    }

    /// As it was in the beginning, but for the word that says what it is.
    fn clear(self) {
        let magic = self.shared.memory.word(0).load(Ordering::Relaxed);
        self.shared.memory.clear();
        self.shared.memory.word(0).store(magic, Ordering::Relaxed);
        // No place to spin without processors.
        self.shared.registry.add_cpus(&[3; 16]);
    }
}
