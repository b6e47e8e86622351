//! Posting writes.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::time::Instant;

use super::bindings::*;
use super::endpoint::Operation;
use super::port::{Body, SendError};
use super::profile::Identify;
use super::rail::{Rail, Stage};
use super::slots::{Sent, Use};
use super::wire::{Header, Kind};
use crate::{LinkId, PostError, Source, Write};

/// Where the bytes of a write are.
struct Bytes<'a> {
    start: *mut u8,
    length: usize,
    descriptor: *mut c_void,
    body: Body<'a>,
    /// To be reported with this.
    context: Option<u64>,
    flags: u64,
}

impl Rail {
    /// [`crate::Fabric::post`].
    pub fn post_write(&mut self, id: LinkId, write: &Write<'_>) -> Result<(), PostError> {
        let limits = self.core.profile.limits;
        let link = self.links.get_mut(&id).filter(|link| link.stage == Stage::Up);
        let Some(link) = link else { return Err(PostError::Down) };
        let Some(port) = link.port.as_mut() else { return Err(PostError::Down) };
        let bytes = match write.source {
            Source::Bytes(bytes) if bytes.len() > limits.inject => {
                return Err(PostError::Invalid("more bytes than can be injected"));
            }
            Source::Bytes(bytes) => Bytes {
                start: bytes.as_ptr().cast_mut(),
                length: bytes.len(),
                descriptor: null_mut(),
                body: Body::Bytes(bytes),
                context: None,
                flags: FI_INJECT,
            },
            Source::Memory { memory, offset, length } => {
                let memory = self.memories.get(memory).ok_or(PostError::Invalid("no such memory"))?;
                let start = memory.region.part(offset, length);
                Bytes {
                    start: start.ok_or(PostError::Invalid("a source outside of its memory"))?,
                    length,
                    descriptor: memory.descriptor(),
                    body: Body::Part(&memory.region, offset, length),
                    context: Some(write.context),
                    flags: 0,
                }
            }
        };
        if bytes.length > limits.write {
            return Err(PostError::Invalid("larger than a write can be"));
        }
        let end = write.offset.checked_add(bytes.length as u64);
        if end.is_none_or(|end| end > write.target.bytes) {
            return Err(PostError::Invalid("a target outside of the peer's memory"));
        }
        let Some(address) = write.target.base.checked_add(write.offset) else {
            return Err(PostError::Invalid("a target that makes no sense"));
        };
        if link.outstanding >= limits.depth {
            return Err(PostError::Full);
        }
        let posted = if self.core.profile.messages {
            let header = Header {
                kind: Kind::Write,
                sequence: link.sent,
                immediate: write.immediate,
                tag: link.peer_tag,
                length: bytes.length as u32,
                key: write.target.key,
                offset: write.offset,
            };
            let what = Sent { write: true, context: bytes.context };
            port.send(&mut self.core, link.peer, &header.encode(), bytes.body, what)
        } else {
            let what = Use::Write { link: id, context: bytes.context };
            let Some((slot, context)) = self.core.slots.take(what) else { return Err(PostError::Full) };
            let operation = Operation {
                buffer: bytes.start,
                length: bytes.length,
                descriptor: bytes.descriptor,
                peer: link.peer,
                context,
            };
            let mut flags = bytes.flags | FI_COMPLETION;
            flags |= if write.more { FI_MORE } else { 0 };
            // Where the provider makes connections as it likes, it may lose one, with what was on its way, and make
            // another: only what is known to be delivered is done.
            flags |= if self.core.profile.connected { 0 } else { FI_DELIVERY_COMPLETE };
            let mut data = 0;
            if let Some(immediate) = write.immediate {
                flags |= FI_REMOTE_CQ_DATA;
                data = u64::from(immediate);
                if self.core.profile.identify == Identify::Tag {
                    data |= u64::from(link.peer_tag) << 32;
                }
            }
            // SAFETY: bytes to inject are the caller's during the call. A part of memory stays until it is released,
            // before which the write is done by contract, or the endpoint closed. Slots outlive the endpoint.
            let posted = unsafe { port.endpoint.write(&operation, write.target.key, address, data, flags) };
            posted.map_err(|errno| {
                self.core.slots.give_back(slot);
                if errno == libc::EAGAIN { SendError::Full } else { SendError::Failed(errno) }
            })
        };
        match posted {
            Ok(()) => {
                link.outstanding += 1;
                link.sent = link.sent.wrapping_add(1);
                link.stuck = None;
                Ok(())
            }
            Err(SendError::Full) => {
                if !self.core.profile.connected && link.outstanding == 0 {
                    link.stuck.get_or_insert_with(Instant::now);
                }
                Err(PostError::Full)
            }
            Err(SendError::Failed(errno)) => {
                let reason = self.core.error("posting a write", errno).0;
                link.stage = Stage::Failed;
                self.failed.push((id, reason));
                Err(PostError::Down)
            }
        }
    }
}
