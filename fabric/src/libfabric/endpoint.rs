//! The calls on endpoints and event queues. Errors are the library's numbers, not negated.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use super::bindings::*;
use super::info::Info;
use super::library::Library;
use super::object::{Object, call, check, check_size};

type Result<T> = std::result::Result<T, i32>;

/// The longest address of any provider, in bytes.
const ADDRESS: usize = 256;

/// The operation that an endpoint posts, in the terms of fi_rma(3) and fi_msg(3).
pub struct Operation {
    pub buffer: *mut u8,
    pub length: usize,
    pub descriptor: *mut c_void,
    /// The peer's number in the address vector.
    pub peer: u64,
    pub context: *mut c_void,
}

fn name_of(own: *mut fid, table: *mut ops::fi_ops_cm) -> Result<Vec<u8>> {
    let mut address = vec![0; ADDRESS];
    let mut length = address.len();
    // SAFETY: the object is open, and the buffer as long as said.
    check(unsafe { call!(table, getname(own, address.as_mut_ptr().cast(), &mut length)) })?;
    address.truncate(length);
    Ok(address)
}

impl Object<fid_ep> {
    /// fi_getname(3).
    pub fn name(&self) -> Result<Vec<u8>> {
        // SAFETY: the endpoint is open.
        name_of(self.fid(), unsafe { (*self.raw()).cm })
    }

    /// fi_connect(3).
    pub fn connect(&self, address: &[u8], data: &[u8]) -> Result<()> {
        let (address, length) = (address.as_ptr().cast(), data.len());
        // SAFETY: the endpoint is open; the caller has compared address family and length with the own ones.
        check(unsafe { call!((*self.raw()).cm, connect(self.raw(), address, data.as_ptr().cast(), length)) })
    }

    /// fi_accept(3).
    pub fn accept(&self, data: &[u8]) -> Result<()> {
        // SAFETY: the endpoint is open.
        check(unsafe { call!((*self.raw()).cm, accept(self.raw(), data.as_ptr().cast(), data.len())) })
    }

    /// fi_shutdown(3). That it fails is of no consequence: closing comes next.
    pub fn shutdown(&self) {
        // SAFETY: the endpoint is open.
        let _: i32 = unsafe { call!((*self.raw()).cm, shutdown(self.raw(), 0)) };
    }

    /// fi_recv(3).
    ///
    /// # Safety
    /// The buffer may be written to, and the context used, until the operation is reported or the endpoint closed.
    pub unsafe fn receive(&self, operation: &Operation) -> Result<()> {
        let Operation { buffer, length, descriptor, peer, context } = *operation;
        let buffer = buffer.cast();
        // SAFETY: the endpoint is open; the rest is the caller's affair.
        let status =
            unsafe { call!((*self.raw()).msg, recv(self.raw(), buffer, length, descriptor, peer, context)) };
        check_size(status).map(drop)
    }

    /// fi_send(3).
    ///
    /// # Safety
    /// Buffer and context stay as they are until the operation is reported or the endpoint closed.
    pub unsafe fn send(&self, operation: &Operation) -> Result<()> {
        let Operation { buffer, length, descriptor, peer, context } = *operation;
        let buffer = buffer.cast_const().cast();
        // SAFETY: the endpoint is open; the rest is the caller's affair.
        let status =
            unsafe { call!((*self.raw()).msg, send(self.raw(), buffer, length, descriptor, peer, context)) };
        check_size(status).map(drop)
    }

    /// fi_writemsg(3), to the peer's memory `key` at `address`.
    ///
    /// # Safety
    /// As [`Object::send`]; with `FI_INJECT` in the flags, the buffer is needed during the call only.
    pub unsafe fn write(
        &self,
        operation: &Operation,
        key: u64,
        address: u64,
        data: u64,
        flags: u64,
    ) -> Result<()> {
        let vector = libc::iovec { iov_base: operation.buffer.cast(), iov_len: operation.length };
        let target = fi_rma_iov { addr: address, len: operation.length, key };
        let mut descriptor = operation.descriptor;
        let message = fi_msg_rma {
            msg_iov: &vector,
            // Providers look into what the array names, if there is one.
            desc: if descriptor.is_null() { null_mut() } else { &mut descriptor },
            iov_count: 1,
            addr: operation.peer,
            rma_iov: &target,
            rma_iov_count: 1,
            context: operation.context,
            data,
        };
        // SAFETY: the endpoint is open, and the vectors live until the call returns, which is enough as FI_ASYNC_IOV
        // is not among the modes asked for; the rest is the caller's affair.
        let status = unsafe { call!((*self.raw()).rma, writemsg(self.raw(), &message, flags)) };
        check_size(status).map(drop)
    }
}

impl Object<fid_pep> {
    /// fi_getname(3).
    pub fn name(&self) -> Result<Vec<u8>> {
        // SAFETY: the endpoint is open.
        name_of(self.fid(), unsafe { (*self.raw()).cm })
    }

    /// fi_listen(3).
    pub fn listen(&self) -> Result<()> {
        // SAFETY: the endpoint is open.
        check(unsafe { call!((*self.raw()).cm, listen(self.raw())) })
    }

    /// fi_reject(3).
    pub fn reject(&self, request: &Info) {
        let handle = request.get().raw().handle;
        // SAFETY: the endpoint is open, and the request one of its own that has not been accepted.
        let _: i32 = unsafe { call!((*self.raw()).cm, reject(self.raw(), handle, null(), 0)) };
    }
}

/// What an event queue tells.
pub enum Notice {
    /// Somebody wants to connect, with this connection data.
    Request(Info, Vec<u8>),
    /// An endpoint, and the connection data of the peer's acceptance if this side has asked.
    Connected(*mut fid, Vec<u8>),
    /// The endpoint's connection has ended.
    Shutdown(*mut fid),
    /// The endpoint's connection has failed, and why.
    Failed(*mut fid, i32),
    /// Nothing of interest.
    Other,
}

/// Room for an event with its connection data.
#[repr(C, align(8))]
struct EventBuffer([u8; 512]);

impl Object<fid_eq> {
    /// fi_eq_read(3): the next event, if there is one.
    pub fn next(&self, library: &'static Library) -> Result<Option<Notice>> {
        const HEAD: usize = std::mem::offset_of!(fi_eq_cm_entry, data);
        let mut buffer = EventBuffer([0; 512]);
        let mut event = 0;
        let (into, room) = (buffer.0.as_mut_ptr().cast(), buffer.0.len());
        // SAFETY: the queue is open, and the buffer as long as said.
        let got =
            check_size(unsafe { call!((*self.raw()).ops, read(self.raw(), &mut event, into, room, 0)) });
        let length = match got {
            Ok(length) => length,
            Err(libc::EAGAIN) => return Ok(None),
            Err(FI_EAVAIL) => return self.next_error(),
            Err(errno) => return Err(errno),
        };
        if length < HEAD {
            return Ok(Some(Notice::Other));
        }
        // SAFETY: the buffer is aligned for and longer than the entry, whose fields may be zero.
        let entry = unsafe { buffer.0.as_ptr().cast::<fi_eq_cm_entry>().read() };
        let data = buffer.0.get(HEAD..length).unwrap_or_default().to_vec();
        Ok(Some(match event {
            FI_CONNREQ => {
                // SAFETY: the info of a request is this side's to free.
                match unsafe { Info::from_raw(library, entry.info) } {
                    Some(info) => Notice::Request(info, data),
                    None => Notice::Other,
                }
            }
            FI_CONNECTED => Notice::Connected(entry.fid, data),
            FI_SHUTDOWN => Notice::Shutdown(entry.fid),
            _ => Notice::Other,
        }))
    }

    fn next_error(&self) -> Result<Option<Notice>> {
        // SAFETY: all fields may be zero.
        let mut entry: fi_eq_err_entry = unsafe { std::mem::zeroed() };
        // SAFETY: the queue is open; without a buffer for it, the provider keeps its data to itself.
        let status = check_size(unsafe { call!((*self.raw()).ops, readerr(self.raw(), &mut entry, 0)) });
        match status {
            Ok(0) | Err(libc::EAGAIN) => Ok(None),
            Ok(_) => Ok(Some(Notice::Failed(entry.fid, entry.err))),
            Err(errno) => Err(errno),
        }
    }
}
