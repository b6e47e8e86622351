//! Talking to an agent's socket for programs as no honest program would: any bytes, any descriptors.

use std::ffi::CString;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Errno, sys};

/// Kinds of messages, as in the runtime's `agent::protocol`.
pub const HELLO: u32 = 1;
/// A connection to another host, with its socket.
pub const OFFER: u32 = 3;
/// The agent's answer to one that it does not take, with the reason.
pub const DECLINED: u32 = 5;
/// A FIFO to wake a thread by.
pub const BELL: u32 = 7;
/// A question that has an answer.
pub const PING: u32 = 10;
/// The version that programs speak.
pub const VERSION: u32 = 2;

/// Bytes of every message.
const BYTES: usize = 32;

/// A connection to the Unix socket at a path (SOCK_SEQPACKET, or what `kind` says), if somebody listens and lets us.
pub fn connect(path: &Path, kind: i32) -> Option<OwnedFd> {
    let (socket, address) = socket(path, kind);
    let length = size_of::<libc::sockaddr_un>() as u32;
    // SAFETY: a valid address with its length.
    let connected = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
    (connected == 0).then_some(socket)
}

/// An agent's socket for programs in the place of the agent, as [`connect`] finds it.
pub fn listen(path: &Path) -> OwnedFd {
    let (socket, address) = socket(path, libc::SOCK_SEQPACKET);
    let length = size_of::<libc::sockaddr_un>() as u32;
    let fd = socket.as_raw_fd();
    // SAFETY: a valid address with its length.
    let bound = unsafe { libc::bind(fd, (&raw const address).cast(), length) };
    // SAFETY: no memory is involved.
    assert!(bound == 0 && unsafe { libc::listen(fd, 10) } == 0, "{}: {}", path.display(), Errno::last());
    socket
}

fn socket(path: &Path, kind: i32) -> (OwnedFd, libc::sockaddr_un) {
    // SAFETY: no memory is involved; the descriptor is new.
    let socket = unsafe {
        OwnedFd::from_raw_fd(sys::descriptor(libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0)))
    };
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    for (place, byte) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *place = *byte as libc::c_char;
    }
    (socket, address)
}

/// Sends a message with descriptors; whether the agent took it.
pub fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[i32]) -> bool {
    let mut parts = sys::parts(&[bytes]);
    let mut header = sys::header(&mut parts);
    let mut control = [0_u64; 128];
    let room = size_of_val(descriptors) as u32;
    if !descriptors.is_empty() {
        header.msg_control = control.as_mut_ptr().cast();
        // SAFETY: the space is computed, and is less than the room.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(room) } as usize;
        // SAFETY: the control buffer is large enough for one message with these descriptors.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(room) as usize;
            let data = libc::CMSG_DATA(first).cast::<i32>();
            std::ptr::copy_nonoverlapping(descriptors.as_ptr(), data, descriptors.len());
        }
    }
    // SAFETY: header, parts and control data are valid during the call.
    unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) >= 0 }
}

/// A message as programs send them: kind, small number, two large ones.
pub fn message(kind: u32, small: u32, one: u64, two: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(small.to_le_bytes());
    bytes.extend(one.to_le_bytes());
    bytes.extend(two.to_le_bytes());
    bytes.resize(BYTES, 0);
    bytes
}

/// Anonymous memory, sealed against changes of its size or not.
pub fn memory(bytes: u64, sealed: bool) -> OwnedFd {
    let name = CString::new("nonsense").expect("a name");
    // SAFETY: a valid name; the descriptor is new.
    let memory = unsafe {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        OwnedFd::from_raw_fd(sys::descriptor(libc::memfd_create(name.as_ptr(), flags)))
    };
    // SAFETY: no memory is involved.
    let sized = unsafe { libc::ftruncate(memory.as_raw_fd(), bytes.try_into().expect("a size")) };
    assert_eq!(sized, 0, "ftruncate");
    if sealed {
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        sys::fcntl(memory.as_raw_fd(), libc::F_ADD_SEALS, seals).expect("seals");
    }
    memory
}
