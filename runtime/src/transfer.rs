//! sendfile and splice: on a promoted stream the bytes are read into a buffer and sent, or received and written.
//! May contain `unsafe`: kernel calls on the program's offsets.

use crate::api::Handled;
use crate::inside::Heap;
use crate::socket::{self, State};
use crate::{iov, room, stream, sys, table};

const BUFFER_BYTES: usize = 65536;
/// What fits into this goes over the stack.
const SMALL_BYTES: usize = 2048;

/// See [`crate::api::sendfile`].
///
/// # Safety
/// As there.
pub unsafe fn sendfile(out: i32, input: i32, offset: *mut libc::off_t, count: usize) -> Handled {
    let Some(socket) = table::socket(out).and_then(socket::at) else {
        // A socket as input is refused by the kernel (EINVAL).
        return None;
    };
    // SAFETY: the caller's promise.
    let plain = || unsafe { sys::sendfile(out, input, offset, count) };
    if socket.state() != State::Promoted
        && let Some(result) = stream::in_kernel(socket, plain)
    {
        return Some(result);
    }
    let mut small = [0u8; SMALL_BYTES];
    let mut large = (count > SMALL_BYTES).then(|| Heap::new(|| room::bytes(BUFFER_BYTES.min(count))));
    let buffer = large.as_deref_mut().map_or(&mut small[..], |large| &mut large[..]);
    let mut total = 0;
    while total < count {
        let wanted = buffer.len().min(count - total);
        // SAFETY: the buffer has room; the offset is null or valid.
        let read = match unsafe { read_at(input, &mut buffer[..wanted], offset) } {
            Ok(0) => break,
            Ok(read) => read,
            Err(errno) => return Some(if total > 0 { Ok(total) } else { Err(errno) }),
        };
        // SAFETY: `read` bytes of the buffer are filled.
        let sent = unsafe { send_some(out, &mut buffer[..read]) };
        let done = sent.unwrap_or(0);
        // SAFETY: the offset is null or valid.
        unsafe { advance(input, offset, done, read) };
        total += done;
        if done < read {
            return Some(match sent {
                Err(errno) if total == 0 => Err(errno),
                _ => Ok(total),
            });
        }
    }
    Some(Ok(total))
}

/// Reads without moving the file's position when an offset is given.
///
/// # Safety
/// `offset` is null or valid.
unsafe fn read_at(input: i32, buffer: &mut [u8], offset: *mut libc::off_t) -> sys::Answer<usize> {
    // SAFETY: the buffer is writable; the offset is null or valid.
    unsafe {
        match offset.as_ref() {
            Some(offset) => sys::pread(input, buffer.as_mut_ptr(), buffer.len(), *offset),
            None => sys::read(input, buffer.as_mut_ptr(), buffer.len()),
        }
    }
}

/// Books `done` of `read` bytes in the offset or the file position.
///
/// # Safety
/// `offset` is null or valid.
unsafe fn advance(input: i32, offset: *mut libc::off_t, done: usize, read: usize) {
    // SAFETY: null or valid.
    match unsafe { offset.as_mut() } {
        Some(offset) => *offset += done as i64,
        None if done < read => sys::seek_back(input, (read - done) as i64),
        None => {}
    }
}

/// # Safety
/// None beyond the slice being the program's or ours.
unsafe fn send_some(out: i32, bytes: &mut [u8]) -> Result<usize, i32> {
    let part = iov::single(bytes.as_mut_ptr(), bytes.len());
    // SAFETY: one valid part.
    let sent = unsafe { stream::send(out, &part, 1, 0) };
    // Another thread may have left the connection to the kernel.
    // SAFETY: as above.
    sent.unwrap_or_else(|| unsafe { sys::write(out, bytes.as_ptr(), bytes.len()) })
}

/// See [`crate::api::splice`].
///
/// # Safety
/// As there.
pub unsafe fn splice(
    input: i32,
    input_offset: *mut i64,
    output: i32,
    output_offset: *mut i64,
    length: usize,
    flags: u32,
) -> Handled {
    let index = [input, output].into_iter().find_map(table::socket)?;
    let socket = socket::at(index)?;
    // SAFETY: the caller's promise.
    let plain = || unsafe { sys::splice(input, input_offset, output, output_offset, length, flags) };
    while socket.state() != State::Promoted {
        if let Some(result) = stream::in_kernel(socket, plain) {
            return Some(result);
        }
        if socket.state() == State::Free {
            return None;
        }
        sys::sched_yield();
    }
    if !input_offset.is_null() || !output_offset.is_null() {
        return Some(Err(libc::ESPIPE));
    }
    let other = if table::socket(input).is_some() { output } else { input };
    if sys::fcntl(other, libc::F_GETPIPE_SZ, 0).is_err() {
        return Some(Err(libc::EINVAL));
    }
    let wait = if flags & libc::SPLICE_F_NONBLOCK != 0 { libc::MSG_DONTWAIT } else { 0 };
    let mut buffer = Heap::new(|| room::bytes(BUFFER_BYTES.min(length.max(1))));
    Some(if table::socket(input).is_some() {
        // SAFETY: descriptors of the program.
        unsafe { stream_to_pipe(input, output, &mut buffer, wait) }
    } else {
        pipe_to_stream(index, socket, output, plain)
    })
}

/// Bytes are taken from the stream only after the pipe has them.
///
/// # Safety
/// None beyond the buffer being writable.
unsafe fn stream_to_pipe(input: i32, output: i32, buffer: &mut [u8], wait: i32) -> Result<usize, i32> {
    let part = iov::single(buffer.as_mut_ptr(), buffer.len());
    // SAFETY: one valid part.
    let seen =
        unsafe { stream::receive(input, &part, 1, libc::MSG_PEEK | wait) }.unwrap_or(Err(libc::EBADF))?;
    // SAFETY: `seen` bytes are filled.
    let written = unsafe { sys::write(output, buffer.as_ptr(), seen) }?;
    let taken = iov::single(buffer.as_mut_ptr(), written);
    // SAFETY: one valid part.
    unsafe { stream::receive(input, &taken, 1, libc::MSG_WAITALL) }.unwrap_or(Err(libc::EBADF))?;
    Ok(written)
}

/// What is taken from a pipe cannot be put back, so the kernel does it.
fn pipe_to_stream(
    index: u32,
    socket: &socket::Socket,
    fd: i32,
    plain: impl FnOnce() -> sys::Answer<usize>,
) -> Result<usize, i32> {
    let Some((channel, slot, generation)) = socket.stream_of(index, fd) else { return plain() };
    let call = channel.begin_kernel_send(slot, generation, fd).ok().flatten().ok_or(libc::EAGAIN)?;
    let result = plain();
    channel.end_kernel_send(slot, call);
    result
}
