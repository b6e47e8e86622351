//! What carries batches between hosts: registered memory and one-sided writes into the peer's.
//!
//! A [`Fabric`] is one *rail*: a device (or an address) of one provider. Over it run *links*, one reliable connection
//! per peer host. A link's writes arrive in the memory that the peer has made known with a [`RemoteMemory`], and each
//! may carry 32 bits of immediate data, with which the peer learns that the write is complete in its memory. The
//! words are those of RDMA verbs and libfabric (fi_rma(3), fi_cq(3)).
//!
//! What a link promises: a write that is reported as arrived is there as a whole, once, unless the link goes
//! [`Event::Down`] first. Writes are reported in the order in which they were posted if [`Limits::ordered`] says so,
//! otherwise in any. What a write's bytes mean is the caller's; nothing here looks at them.
#![deny(unsafe_code)]

pub mod libfabric;
pub mod memory;
#[allow(unsafe_code)]
mod region;
#[allow(unsafe_code)]
pub mod shm;

use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;

/// A link of a rail, numbered by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// What a rail can do. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest write.
    pub write: usize,
    /// Writes up to this size may be posted from memory that is not registered and used again at once.
    pub inject: usize,
    /// Writes that may be outstanding on one link.
    pub depth: usize,
    /// Writes of one link are placed and reported in the order in which they were posted.
    pub ordered: bool,
    /// One-sided writes, as opposed to messages that the receiving side's processor copies into place.
    pub one_sided: bool,
}

/// How a peer names memory of this side. What a peer sends is not trusted: writing with it can fail, no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteMemory {
    /// Protection key.
    pub key: u64,
    /// What the first byte is called: its virtual address, or 0 with providers that count from there.
    pub base: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// One write to post.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Where the bytes are.
    pub source: Source<'a>,
    /// The peer's memory.
    pub target: RemoteMemory,
    /// First byte there.
    pub offset: u64,
    /// Told to the peer when the write is complete in its memory.
    pub immediate: Option<u32>,
    /// Comes back in [`Event::Written`]; not for [`Source::Bytes`], which is never reported.
    pub context: u64,
    /// Another write follows at once: the device need not be told yet.
    pub more: bool,
}

/// The bytes of a write.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// At most [`Limits::inject`] bytes, copied before [`Fabric::post`] returns.
    Bytes(&'a [u8]),
    /// A part of registered memory. It must not change until the write is reported as [`Event::Written`].
    Memory {
        /// The memory, of this rail.
        memory: MemoryId,
        /// First byte.
        offset: usize,
        /// How many.
        length: usize,
    },
}

/// Registered memory of a rail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryId(pub u32);

/// Who may write a piece of registered memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// This process only: a source of writes.
    Local,
    /// Peers too.
    Remote,
}

/// Why a write was not posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostError {
    /// As many are outstanding as there can be: again after the next [`Event::Written`], or if only
    /// [`Source::Bytes`] are outstanding, after the next [`Fabric::poll`].
    Full,
    /// The link is not, or no longer, connected.
    Down,
    /// The write breaks a limit; nothing about the link has changed.
    Invalid(&'static str),
}

/// What has happened on a rail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link can be used.
    Connected(LinkId),
    /// A write from registered memory is done with that memory.
    Written {
        /// On this link.
        link: LinkId,
        /// As posted.
        context: u64,
    },
    /// A write of the peer with immediate data is complete in this side's memory.
    Arrived {
        /// On this link.
        link: LinkId,
        /// As posted.
        immediate: u32,
    },
    /// The link has ended; what was outstanding on it may have arrived or not. Reported once.
    Down {
        /// This link.
        link: LinkId,
        /// For a log line.
        reason: String,
    },
}

/// What a rail could not do, in words for a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Memory that is not the fabric's own.
///
/// # Safety
/// The range that [`Foreign::range`] gives is always the same, and stays mapped and readable as long as the value lives.
#[allow(unsafe_code)]
pub unsafe trait Foreign: Send + Sync {
    /// First byte and length. Others may write there at any time.
    fn range(&self) -> (*const u8, usize);
}

/// One rail. Used by one thread at a time; nothing here blocks.
pub trait Fabric: Send {
    /// Provider and device, for people.
    fn name(&self) -> &str;

    /// What it can do.
    fn limits(&self) -> Limits;

    /// Where peers reach this rail; opaque to all but another rail of the same kind.
    fn address(&self) -> &[u8];

    /// Makes `bytes` of zeroed memory and registers it.
    ///
    /// # Errors
    /// No memory, or the device refuses (often RLIMIT_MEMLOCK).
    fn allocate(&mut self, bytes: usize, access: Access) -> Result<MemoryId, Error>;

    /// Registers memory of somebody else, for reading; it is kept until [`Fabric::release`] or the end of the rail.
    ///
    /// # Errors
    /// As [`Fabric::allocate`].
    fn register(&mut self, memory: Arc<dyn Foreign>) -> Result<MemoryId, Error>;

    /// Ends the registration, and the memory if it was allocated. No write from it may be outstanding.
    fn release(&mut self, memory: MemoryId);

    /// How peers write into memory allocated with [`Access::Remote`].
    fn remote(&self, memory: MemoryId) -> Option<RemoteMemory>;

    /// Copies out of allocated memory; false when the range is not inside. What a peer writes meanwhile may be seen in
    /// part.
    fn read(&self, memory: MemoryId, offset: usize, into: &mut [u8]) -> bool;

    /// Allocated memory of [`Access::Local`] to write into; nothing for other memory. The caller leaves parts with
    /// outstanding writes alone.
    fn local(&mut self, memory: MemoryId) -> Option<&mut [u8]>;

    /// Begins to connect to the rail at `address`, whose side [accepts](Fabric::accept) the same `token`. A link number
    /// may be used again after its [`Event::Down`] or [`Fabric::disconnect`].
    ///
    /// # Errors
    /// The address makes no sense here, or there are no resources. Later failure is an [`Event::Down`].
    fn connect(&mut self, link: LinkId, address: &[u8], token: u64) -> Result<(), Error>;

    /// Lets the rail at `address` connect with `token`.
    ///
    /// # Errors
    /// As [`Fabric::connect`].
    fn accept(&mut self, link: LinkId, address: &[u8], token: u64) -> Result<(), Error>;

    /// Ends a link, connected or not; no event follows.
    fn disconnect(&mut self, link: LinkId);

    /// Posts a write.
    ///
    /// # Errors
    /// See [`PostError`].
    fn post(&mut self, link: LinkId, write: &Write<'_>) -> Result<(), PostError>;

    /// Makes progress and appends what has happened.
    fn poll(&mut self, events: &mut Vec<Event>);

    /// A descriptor that polls readable when [`Fabric::poll`] may have something; nothing when the rail must be polled.
    fn wait_descriptor(&self) -> Option<RawFd>;

    /// To be called before sleeping on the descriptor: false when there is something to poll already
    /// (fi_trywait(3)).
    fn may_sleep(&mut self) -> bool;
}
