//! The objects of a rail that all of its links share: fabric, domain, queues, and the descriptor to sleep on.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::bindings::*;
use super::info::Info;
use super::library::Library;
use super::object::Object;
use super::profile::{Identify, Profile};
use super::slots::Slots;
use crate::{Error, LinkId};

/// Entries of a completion queue; several times fewer than any device allows.
const QUEUE: usize = 4096;
/// How long a sleeper may stay away from operations that need its help, in nanoseconds.
const HELP: libc::c_long = 5_000_000;

/// A completion queue, and how much of it is spoken for.
pub struct Queue {
    pub cq: Object<fid_cq>,
    /// Entries that the endpoints bound to it do not need.
    room: usize,
    /// The one link it is for, with [`Identify::Queue`].
    pub owner: Option<LinkId>,
}

/// What there is one of. Fields are dropped in this order.
pub struct Core {
    pub queues: Vec<Option<Queue>>,
    pub addresses: Option<Object<fid_av>>,
    pub events: Option<Object<fid_eq>>,
    pub domain: Object<fid_domain>,
    pub fabric: Object<fid_fabric>,
    pub info: Info,
    pub slots: Slots,
    pub profile: Profile,
    pub library: &'static Library,
    sleeper: Option<Sleeper>,
}

impl Core {
    pub fn open(library: &'static Library, mut info: Info, profile: Profile) -> Result<Core, Error> {
        profile.apply(&mut info);
        let failed = |what| move |errno| library.error(what, errno);
        let fabric = Object::<fid_fabric>::open(library, info.get()).map_err(failed("fi_fabric"))?;
        let domain = fabric.domain(&info).map_err(failed("fi_domain"))?;
        let mut sleeper = Some(Sleeper::new()?);
        let (mut events, mut addresses) = (None, None);
        if profile.connected {
            let with_wait = fabric.event_queue(FI_WAIT_FD);
            let queue = with_wait.or_else(|_| {
                sleeper = None;
                fabric.event_queue(FI_WAIT_NONE)
            });
            let queue = queue.map_err(failed("fi_eq_open"))?;
            watch(&mut sleeper, &queue);
            events = Some(queue);
        } else {
            addresses = Some(domain.address_vector().map_err(failed("fi_av_open"))?);
        }
        let (queues, slots) = (Vec::new(), Slots::new()?);
        Ok(Core { queues, addresses, events, domain, fabric, info, slots, profile, library, sleeper })
    }

    /// For a failed call.
    pub fn error(&self, what: &str, errno: i32) -> Error {
        self.library.error(what, errno)
    }

    /// The queue for a new endpoint: the first that has room, or one more.
    pub fn queue_for(&mut self, owner: Option<LinkId>) -> Result<usize, Error> {
        let need = self.profile.completions();
        let owner = owner.filter(|_| self.profile.identify == Identify::Queue);
        if owner.is_none() {
            for (index, queue) in self.queues.iter_mut().enumerate() {
                if let Some(queue) =
                    queue.as_mut().filter(|queue| queue.owner.is_none() && queue.room >= need)
                {
                    queue.room -= need;
                    return Ok(index);
                }
            }
        }
        let size = QUEUE.max(need);
        let cq = match &self.sleeper {
            Some(_) => match self.domain.completion_queue(size, FI_WAIT_FD) {
                Ok(cq) => cq,
                Err(_) => {
                    self.sleeper = None;
                    self.plain_queue(size)?
                }
            },
            None => self.plain_queue(size)?,
        };
        watch(&mut self.sleeper, &cq);
        let queue = Some(Queue { cq, room: size - need, owner });
        match self.queues.iter().position(Option::is_none) {
            Some(index) => {
                self.queues[index] = queue;
                Ok(index)
            }
            None => {
                self.queues.push(queue);
                Ok(self.queues.len() - 1)
            }
        }
    }

    fn plain_queue(&self, size: usize) -> Result<Object<fid_cq>, Error> {
        self.domain.completion_queue(size, FI_WAIT_NONE).map_err(|errno| self.error("fi_cq_open", errno))
    }

    /// An endpoint of the queue is closed.
    pub fn leave_queue(&mut self, index: usize) {
        let need = self.profile.completions();
        let Some(slot) = self.queues.get_mut(index) else { return };
        match slot {
            Some(queue) if queue.owner.is_none() => queue.room += need,
            _ => *slot = None,
        }
    }

    /// Whether the library has nothing left to say, so that the descriptor tells when it has (fi_trywait(3)).
    pub fn try_wait(&self) -> bool {
        let queues = self.queues.iter().flatten().map(|queue| queue.cq.fid());
        let mut objects: Vec<_> = queues.chain(self.events.as_ref().map(Object::fid)).collect();
        self.sleeper.is_some() && self.fabric.try_wait(&mut objects).is_ok()
    }

    /// Lets the sleeper be woken after a while, if something needs its help.
    pub fn set_alarm(&mut self, needed: bool) {
        if let Some(sleeper) = &mut self.sleeper {
            sleeper.set_alarm(needed);
        }
    }

    pub fn descriptor(&self) -> Option<RawFd> {
        self.sleeper.as_ref().map(|sleeper| sleeper.epoll.as_raw_fd())
    }
}

/// Adds the descriptor of a queue; a queue without one must be polled, and so the whole rail.
fn watch<T: super::object::Class>(sleeper: &mut Option<Sleeper>, queue: &Object<T>) {
    let added = match sleeper {
        Some(sleeper) => queue.descriptor().is_ok_and(|descriptor| sleeper.add(descriptor)),
        None => return,
    };
    if !added {
        *sleeper = None;
    }
}

/// One descriptor for all queues, and a clock.
struct Sleeper {
    epoll: OwnedFd,
    timer: OwnedFd,
    set: bool,
}

impl Sleeper {
    fn new() -> Result<Sleeper, Error> {
        let owned = |descriptor| match descriptor {
            // SAFETY: the descriptor is new, and nobody else's.
            0.. => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
            _ => Err(Error(format!("no descriptor to sleep on: {}", io::Error::last_os_error()))),
        };
        // SAFETY: makes a descriptor.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: makes a descriptor.
        let timer = owned(unsafe {
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK)
        })?;
        let sleeper = Sleeper { epoll, timer, set: false };
        match sleeper.add(sleeper.timer.as_raw_fd()) {
            true => Ok(sleeper),
            false => Err(Error(format!("epoll_ctl: {}", io::Error::last_os_error()))),
        }
    }

    fn add(&self, descriptor: RawFd) -> bool {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: the event is read during the call.
        let status =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &mut event) };
        status == 0
    }

    fn set_alarm(&mut self, needed: bool) {
        if !needed && !self.set {
            return;
        }
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let soon = libc::timespec { tv_sec: 0, tv_nsec: if needed { HELP } else { 0 } };
        let setting = libc::itimerspec { it_interval: never, it_value: soon };
        // SAFETY: the setting is read during the call. It also takes back that the clock has gone off.
        unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), 0, &setting, std::ptr::null_mut()) };
        self.set = needed;
    }
}
