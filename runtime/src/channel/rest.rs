//! Before a thread sleeps, and what its wakers pay for it: see `shm::sleep_word` for the rules.

use super::{Channel, all, at};
use crate::inside::Heap;
use crate::process::{self, Identity};
use crate::{stats, sys};
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};
use smallvec::SmallVec;

/// Times in a row that a side finds messages without having slept, after which its wakers need no fence any more: a membarrier
/// costs as much as some tens of fences.
const FINDS_TO_RELAX: u32 = 64;

/// This process is registered with membarrier(2): it may leave fences out. Set when it joins.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Registers this process with membarrier(2), if the kernel lets it.
pub fn register() {
    REGISTERED.store(sys::register_for_barriers().is_ok(), Ordering::Relaxed);
}

/// A thread that is about to sleep until something comes on some channels, or that must be sure that everybody sees what it has
/// just written before it looks.
pub struct Rest {
    /// Index and serial of the channels: a channel that ends meanwhile may be freed.
    channels: Heap<SmallVec<[(u32, u64); 8]>>,
    own: Identity,
    sure: bool,
}

impl Rest {
    /// What the thread looks at next is ordered after this, as is what those see who publish on the channels later.
    pub fn begin<'a>(channels: impl Iterator<Item = &'a Channel>) -> Self {
        let near = channels.filter(|channel| !channel.leads_to_agent());
        let channels = Heap::new(|| near.map(|channel| (channel.index, channel.serial)).collect());
        let mut rest = Self { channels, own: process::own(), sure: true };
        let unfenced = rest.each().filter(|channel| !channel.enter_rest()).count();
        if unfenced == 0 {
            fence(Ordering::SeqCst);
            return rest;
        }
        stats::process().barriers.add(1);
        rest.sure = sys::barrier_everywhere().is_ok();
        if rest.sure {
            rest.each().for_each(|channel| channel.own_side().sleepers.confirm());
        }
        rest
    }

    /// The same for all channels on which this process has streams.
    pub fn beside_all() -> Self {
        Self::begin(all().filter(|channel| channel.streams.load(Ordering::Relaxed) > 0))
    }

    /// Whether a waker is certain to see the sleeper; otherwise it has to look by itself from time to time.
    pub fn is_sure(&self) -> bool {
        self.sure
    }

    fn each(&self) -> impl Iterator<Item = &'static Channel> {
        self.channels
            .iter()
            .filter_map(|(index, serial)| at(*index).filter(|channel| channel.serial == *serial))
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        // After a fork in a handler the count is the parent's.
        if process::own() == self.own {
            self.each().for_each(|channel| channel.own_side().sleepers.leave());
        }
    }
}

impl Channel {
    /// Whether wakers on the other side fence already.
    fn enter_rest(&self) -> bool {
        self.party.shared().finds.store(0, Ordering::Relaxed);
        self.own_side().sleepers.enter()
    }

    /// Something was found on the channel; under the receive lock.
    #[inline]
    pub(super) fn note_find(&self) {
        let finds = &self.party.shared().finds;
        let count = finds.load(Ordering::Relaxed) + 1;
        finds.store(count % FINDS_TO_RELAX, Ordering::Relaxed);
        if count == FINDS_TO_RELAX && !self.leads_to_agent() && REGISTERED.load(Ordering::Relaxed) {
            self.own_side().sleepers.relax();
        }
    }

    /// After something was published for the other side of a channel between two processes: whether nobody there sleeps.
    /// Otherwise what is read next is ordered after what was published.
    #[inline]
    pub(super) fn nobody_sleeps_there(&self) -> bool {
        self.nobody_sleeps(self.side ^ 1)
    }

    /// The same for what was queued for threads of this side.
    #[inline]
    pub(super) fn nobody_sleeps_here(&self) -> bool {
        self.nobody_sleeps(self.side)
    }

    #[inline]
    fn nobody_sleeps(&self, side: usize) -> bool {
        // The processor may still read before it writes: a sleeper's membarrier sees to that, where this process takes part in it.
        compiler_fence(Ordering::SeqCst);
        if self.segment.side(side).sleepers.is_quiet() && REGISTERED.load(Ordering::Relaxed) {
            return true;
        }
        fence(Ordering::SeqCst);
        false
    }
}
