//! Which counters there are and how they lie in the page.
//!
//! A page is a header, the process's counters, [`LANES`] sets of lane counters and what a tracer wants, all 64-bit words in the
//! byte order of the machine. The version is made of the names, so that a reader built from other sources sees a mismatch
//! instead of wrong numbers.

use super::outside;
use crate::{config, sys};
use core::sync::atomic::{AtomicU64, Ordering};

/// Sets of lane counters in a page; a power of two.
pub const LANES: usize = 256;
/// First word of a page that is complete.
pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"convoyst");

/// A counter that any thread may change.
#[derive(Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    #[inline]
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds without a locked instruction, for what happens at every message: where several threads count at the same moment, one may
    /// be lost.
    #[inline]
    pub fn bump(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// For gauges: takes away what was added before.
    #[inline]
    pub fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// For gauges that are known as a whole.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// A counter that is changed only under its lane's lock: a plain load and store, no locked instruction.
#[derive(Default)]
#[repr(transparent)]
pub struct LaneCounter(Counter);

impl LaneCounter {
    /// A counter at zero.
    pub const fn new() -> LaneCounter {
        LaneCounter(Counter::new())
    }

    #[inline]
    pub fn bump(&self, count: u64) {
        self.0.bump(count);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    pub(super) fn clear(&self) {
        self.0.take();
    }
}

/// Declares a struct of counters together with their names and meanings.
macro_rules! counters {
    ($(#[$about:meta])* $name:ident of $kind:ident { $($field:ident: $help:literal,)* }
     $(beside $(#[$note:meta])* $extra:ident: $word:ty)?) => {
        $(#[$about])*
        pub struct $name { $(#[doc = $help] pub $field: $kind,)* $($(#[$note])* pub $extra: $word,)? }

        impl $name {
            /// Name and meaning of every counter, in the order of the page.
            pub const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), $help),)*];

            pub(super) const fn new() -> Self {
                Self { $($field: $kind::new(),)* $($extra: <$word>::new(0),)? }
            }

            /// Every counter, in the order of [`Self::FIELDS`].
            pub(super) fn all(&self) -> [&$kind; Self::FIELDS.len()] {
                [$(&self.$field,)*]
            }
        }
    };
}

counters! {
    /// Counters of a process as a whole.
    #[repr(C, align(64))]
    Process of Counter {
        connections_seen: "TCP connections looked at",
        streams_opened: "connections that have been accelerated",
        streams_closed: "accelerated connections that have ended",
        streams_far: "accelerated connections to other hosts",
        failovers: "connections to other hosts that returned to the kernel because an agent or the fabric failed",
        promotions: "directions of a connection that left the kernel for a channel",
        promotions_refused: "promotions that the other end did not agree to",
        switches_to_channel: "times a sender went from the kernel to a channel",
        switches_to_kernel: "times a sender went from a channel back to the kernel",
        sleeps: "times a thread went to sleep for lack of anything to do",
        barriers: "times a thread made all processors pass a memory barrier before it went to sleep",
        wakeups: "times a sleeping thread was woken by a doorbell",
        doorbells_rung: "doorbells rung for a sleeping receiver",
        spins: "times a thread span before going to sleep",
        spin_hits: "spins during which something arrived",
        spin_pauses: "times spinning was given up for a while, because the processor was wanted or nothing came",
        yields: "times a thread gave its processor away instead of spinning",
        kernel_sends: "send calls of tracked connections that went to the kernel",
        kernel_receives: "receive calls of tracked connections that went to the kernel",
        kernel_bytes_sent: "bytes of tracked connections sent through the kernel",
        kernel_bytes_received: "bytes of tracked connections received through the kernel",
        epoll_waits: "waits on an epoll with accelerated connections",
        epoll_kernel_looks: "times such a wait asked the kernel's epoll",
        channels_created: "channels set up by this process",
        channels_attached: "channels set up by the other end",
        channels_broken: "channels ended because the other end broke the rules or died",
        blocks_sent: "blocks (large payloads) sent",
        bytes_dropped: "bytes thrown away because their connection had been closed",
        memory_bytes: "bytes that peers may send ahead now (windows of all streams)",
        memory_budget: "bytes that they may have at most, as far as the limits, the user's other programs and the machine allow now",
        windows_widened: "times a stream got a larger window because its reader keeps up",
        windows_narrowed: "times a stream got a smaller one because its reader is slow or memory is short",
        bypasses_rules: "connections left to the kernel by CONVOY_RULES",
        bypasses_other_host: "connections left to the kernel because the other end is on another host and there is no agent here",
        bypasses_no_peer_agent: "connections left to the kernel because the other host has no agent that could be used",
        bypasses_policy: "connections left to the kernel by the policy of an agent",
        bypasses_unmatched: "connections left to the kernel because the other end never appeared under Convoy",
        bypasses_registry_full: "connections left to the kernel because the registry was full",
        bypasses_channel_full: "times a connection was left to the kernel because its channel had no place for it",
        bypasses_memory: "connections left to the kernel by CONVOY_MEMORY_LIMIT",
        bypasses_no_segment: "connections left to the kernel because no shared memory was to be had",
        bypasses_shared: "connections left to the kernel because several processes held the socket",
        bypasses_option: "connections left to the kernel because of a socket option",
        bypasses_self_connected: "connections left to the kernel because both ends are the same socket",
        bypasses_stdio: "connections left to the kernel because of fdopen, dprintf and the like",
        bypasses_passed: "connections left to the kernel because they were passed to another process",
        bypasses_received: "connections left to the kernel because another process has passed them to this one",
        bypasses_exec: "connections left to the kernel because of exec",
        bypasses_call: "connections left to the kernel because of a call that only the kernel can do",
        bypasses_identity: "connections left to the kernel because of a change of user, root directory or namespaces, or a sandbox, or because the registry cannot be used",
        bypasses_io_uring: "times a program asked for an io_uring and was told that there is none",
        bypasses_not_tcp: "sockets left to the kernel because they are not TCP",
        demotions_stdio: "connections returned to the kernel because of fdopen, dprintf and the like",
        demotions_passed: "connections returned to the kernel because they were passed to another process",
        demotions_exec: "connections returned to the kernel because of exec",
        demotions_option: "connections returned to the kernel because of a socket option",
        demotions_call: "connections returned to the kernel because of a call that only the kernel can do",
        demotions_identity: "connections returned to the kernel because of a change of user, root directory or namespaces, or a sandbox",
        demotions_peer_closed: "connections returned to the kernel because the other end closed",
        demotions_peer_asked: "connections returned to the kernel because the other end asked for it",
        demotions_broken: "connections returned to the kernel because their channel broke",
    }
}

counters! {
    /// Counters of one lane, on cache lines of their own.
    #[repr(C, align(64))]
    LaneCounters of LaneCounter {
        frames_sent: "messages sent through channels",
        bytes_sent: "bytes sent through channels",
        frames_received: "messages received through channels",
        bytes_received: "bytes received through channels",
        batches_received: "batches in which messages were received",
        blocks_received: "blocks (large payloads) received",
    }
    beside
    /// Not 0 while `convoy trace` wants the lane's events. Here, because whoever has an event counts it on this line. Written by
    /// the reader, through the file, and set to 0 by the process when the time is over.
    traced: AtomicU64
}

impl LaneCounters {
    /// Whether events of the lane are wanted.
    #[inline(always)]
    pub fn is_traced(&self) -> bool {
        self.traced.load(Ordering::Relaxed) != 0
    }
}

/// What `convoy trace` wants of the process, and where it finds it (see `crate::trace`).
#[derive(Default)]
#[repr(C, align(64))]
pub struct Control {
    /// Which trace this is: any number but 0 that the one before did not have. Written by the reader.
    pub session: AtomicU64,
    /// Events are written until then, in nanoseconds of CLOCK_MONOTONIC. Written by the reader, which puts it off as long as it lives.
    pub until: AtomicU64,
    /// Bytes of payload wanted with each frame. Written by the reader.
    pub payload: AtomicU64,
    /// The process's descriptor of the events, plus 1; 0 = none yet, all ones = there is no memory for them. Written by the process.
    pub descriptor: AtomicU64,
}

impl Control {
    const fn new() -> Self {
        Self {
            session: AtomicU64::new(0),
            until: AtomicU64::new(0),
            payload: AtomicU64::new(0),
            descriptor: AtomicU64::new(0),
        }
    }
}

/// What the page says about its process.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Header {
    /// `MAGIC`.
    pub magic: u64,
    /// `VERSION`.
    pub version: u64,
    /// The process, in the namespace below.
    pub pid: u64,
    /// When it started, in clock ticks since the machine did.
    pub start_time: u64,
    /// Inode number of its pid namespace.
    pub pid_namespace: u64,
    /// File name of its program, filled up with zeros.
    pub program: [u8; 32],
}

impl Header {
    pub(super) const ZERO: Header =
        Header { magic: 0, version: 0, pid: 0, start_time: 0, pid_namespace: 0, program: [0; 32] };

    pub(super) fn of_this_process() -> Header {
        let pid = sys::getpid();
        let mut program = [0; 32];
        let name = config::program();
        let length = name.len().min(program.len() - 1);
        program[..length].copy_from_slice(&name[..length]);
        Header {
            magic: MAGIC,
            version: VERSION,
            pid: u64::from(pid.unsigned_abs()),
            start_time: outside::start_time(pid.unsigned_abs()).unwrap_or(0),
            pid_namespace: outside::pid_namespace().unwrap_or(0),
            program,
        }
    }
}

/// The whole page.
#[repr(C, align(64))]
pub struct Page {
    pub header: Header,
    pub process: Process,
    pub lanes: [LaneCounters; LANES],
    pub control: Control,
}

impl Page {
    pub(super) const fn new() -> Page {
        Page {
            header: Header::ZERO,
            process: Process::new(),
            lanes: [const { LaneCounters::new() }; LANES],
            control: Control::new(),
        }
    }
}

/// FNV-1a over the names of all counters.
pub(super) const VERSION: u64 = hash(LaneCounters::FIELDS, hash(Process::FIELDS, 0xcbf2_9ce4_8422_2325));

const fn hash(fields: &[(&str, &str)], mut state: u64) -> u64 {
    let mut field = 0;
    while field < fields.len() {
        let name = fields[field].0.as_bytes();
        let mut at = 0;
        while at <= name.len() {
            let byte = if at < name.len() { name[at] } else { 0 };
            state = (state ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
            at += 1;
        }
        field += 1;
    }
    state
}

// A lane's counters and its switch for tracers share one line.
const _: () = assert!(size_of::<LaneCounters>() == 64);
