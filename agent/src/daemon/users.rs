//! How much each user of this host takes, against what the policy lets him have.

use super::closer::Closer;
use convoy_control::Rate;
use convoy_control::policy::{Limits, Policy};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Lines in the log about what one user's programs do wrong: he must not fill the disk with them.
const COMPLAINTS_PER_SECOND: u64 = 5;

/// Descriptors of one user that may wait to be closed while more of them are taken.
const MOST_CLOSING: usize = 256;
/// How long a user's programs are not heard because of that, until they are dropped.
const STUCK: Duration = Duration::from_secs(4);

/// Whether a program may be heard now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    Now,
    /// When some of what its user's programs have passed is closed.
    Later,
    /// What its user's programs have passed cannot be closed.
    Never,
}

pub(super) struct Users {
    known: HashMap<u32, User>,
    /// Descriptors that programs of one user may make this agent hold.
    descriptors: u64,
}

struct User {
    limits: Limits,
    offers: Rate,
    bytes: Rate,
    complaints: Rate,
    streams: u64,
    memory: u64,
    descriptors: u64,
    closer: Closer,
    /// Since when there have been too many descriptors to close.
    stuck: Option<Instant>,
    /// Bytes that were taken on credit: none are taken until they are paid for.
    owed: u64,
}

impl Users {
    pub(super) fn new(descriptors: u64) -> Self {
        Self { known: HashMap::new(), descriptors }
    }

    fn user(&mut self, uid: u32, policy: &Policy, now: Instant) -> &mut User {
        self.known.entry(uid).or_insert_with(|| {
            let limits = policy.limits(uid);
            User {
                limits,
                offers: Rate::new(limits.offers_per_second, now),
                bytes: Rate::new(limits.bytes_per_second, now),
                complaints: Rate::new(COMPLAINTS_PER_SECOND, now),
                streams: 0,
                memory: 0,
                descriptors: 0,
                closer: Closer::new(),
                stuck: None,
                owed: 0,
            }
        })
    }

    /// Whether the user may offer one more connection.
    pub(super) fn may_offer(&mut self, uid: u32, policy: &Policy, now: Instant) -> bool {
        let user = self.user(uid, policy, now);
        user.streams < user.limits.streams && user.offers.take(now, 1)
    }

    /// A program of the user has come with so much memory; false when that is too much.
    pub(super) fn add_program(&mut self, uid: u32, memory: u64, policy: &Policy, now: Instant) -> bool {
        let user = self.user(uid, policy, now);
        let fits = user.memory.saturating_add(memory) <= user.limits.memory;
        if fits {
            user.memory += memory;
        }
        fits
    }

    pub(super) fn remove_program(&mut self, uid: u32, memory: u64) {
        if let Some(user) = self.known.get_mut(&uid) {
            user.memory = user.memory.saturating_sub(memory);
        }
    }

    /// The user makes the agent hold one more descriptor; false when he has as many as there may be.
    pub(super) fn add_descriptor(&mut self, uid: u32, policy: &Policy, now: Instant) -> bool {
        let most = self.descriptors;
        let user = self.user(uid, policy, now);
        let fits = user.descriptors < most;
        user.descriptors += u64::from(fits);
        fits
    }

    pub(super) fn remove_descriptors(&mut self, uid: u32, count: u64) {
        if let Some(user) = self.known.get_mut(&uid) {
            user.descriptors = user.descriptors.saturating_sub(count);
        }
    }

    /// Closes a descriptor of a program of the user's, without waiting for it.
    pub(super) fn close(&mut self, uid: u32, descriptor: OwnedFd) {
        if let Some(user) = self.known.get_mut(&uid) {
            user.closer.close(descriptor);
        }
    }

    /// As [`Users::close`].
    pub(super) fn close_all(&mut self, uid: u32, descriptors: Vec<OwnedFd>) {
        descriptors.into_iter().for_each(|descriptor| self.close(uid, descriptor));
    }

    /// Whether a program of the user may pass more descriptors.
    pub(super) fn hearing(&mut self, uid: u32, now: Instant) -> Hearing {
        let Some(user) = self.known.get_mut(&uid) else { return Hearing::Now };
        if user.closer.open() < MOST_CLOSING {
            user.stuck = None;
            return Hearing::Now;
        }
        let since = *user.stuck.get_or_insert(now);
        if now.saturating_duration_since(since) < STUCK { Hearing::Later } else { Hearing::Never }
    }

    /// Whether there may be one more line in the log about what the user's programs do wrong.
    pub(super) fn may_be_named(&mut self, uid: u32, now: Instant) -> bool {
        self.known.get_mut(&uid).is_none_or(|user| user.complaints.take(now, 1))
    }

    /// The number of the user's streams changes.
    pub(super) fn count_stream(&mut self, uid: u32, more: bool) {
        if let Some(user) = self.known.get_mut(&uid) {
            user.streams = if more { user.streams + 1 } else { user.streams.saturating_sub(1) };
        }
    }

    /// Whether bytes may be taken from the user's programs now. What is not taken stays in their rings, and what finds
    /// no room there goes through the kernel.
    pub(super) fn may_take(&mut self, uid: u32, now: Instant) -> bool {
        let Some(user) = self.known.get_mut(&uid).filter(|user| user.limits.bytes_per_second > 0) else {
            return true;
        };
        if user.owed > 0 && user.bytes.take(now, user.owed) {
            user.owed = 0;
        }
        user.owed == 0
    }

    /// So many bytes were taken.
    pub(super) fn took(&mut self, uid: u32, bytes: u64) {
        if let Some(user) = self.known.get_mut(&uid).filter(|user| user.limits.bytes_per_second > 0) {
            user.owed += bytes;
        }
    }

    /// The policy has changed.
    pub(super) fn reload(&mut self, policy: &Policy, now: Instant) {
        for (uid, user) in &mut self.known {
            user.limits = policy.limits(*uid);
            user.offers = Rate::new(user.limits.offers_per_second, now);
            user.bytes = Rate::new(user.limits.bytes_per_second, now);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::time::Duration;

    #[test]
    fn limits_hold_and_are_given_back() {
        let text = "[[limits]]\nstreams = 1\nmemory = 100\noffers_per_second = 2\nbytes_per_second = 1000\n";
        let policy = Policy::parse(text, "test").unwrap();
        let (mut users, now) = (Users::new(2), Instant::now());
        assert!(users.add_descriptor(5, &policy, now) && users.add_descriptor(5, &policy, now));
        assert!(!users.add_descriptor(5, &policy, now), "too many descriptors");
        assert!(users.add_descriptor(6, &policy, now), "another user's");
        users.remove_descriptors(5, 1);
        assert!(users.add_descriptor(5, &policy, now));
        assert!(users.add_program(5, 60, &policy, now));
        assert!(!users.add_program(5, 60, &policy, now));
        users.remove_program(5, 60);
        assert!(users.add_program(5, 60, &policy, now));
        assert!(users.may_offer(5, &policy, now));
        users.count_stream(5, true);
        assert!(!users.may_offer(5, &policy, now), "too many streams");
        users.count_stream(5, false);
        assert!(users.may_offer(5, &policy, now));
        assert!(!users.may_offer(5, &policy, now), "too many offers in a second");
        assert!(users.may_offer(5, &policy, now + Duration::from_secs(1)));
        assert!(users.may_take(5, now));
        users.took(5, 3000);
        assert!(users.may_take(5, now), "the bucket was full");
        users.took(5, 1);
        assert!(!users.may_take(5, now));
        assert!(users.may_take(5, now + Duration::from_secs(3)));
        assert!(users.may_take(7, now), "nobody knows this one");
        assert_eq!(users.hearing(5, now), Hearing::Now);
        assert_eq!((0..100).filter(|_| users.may_be_named(5, now)).count(), COMPLAINTS_PER_SECOND as usize);
        assert!(users.may_be_named(6, now), "another user's");
    }
}
