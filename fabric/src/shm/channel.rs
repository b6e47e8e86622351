//! A Unix socket between two processes of a host, over which they tell each other little and pass descriptors.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::Error;

/// Descriptors that go with a message.
const PASSED: usize = 2;

/// A sequence of messages, each with up to two descriptors.
pub struct Channel(OwnedFd);

/// What came.
pub enum Received {
    Message(Message, Vec<OwnedFd>),
    Nothing,
    /// The peer has closed its end, or has sent what is no message.
    End,
}

/// What sides tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first, of the connecting side; with the memory of the link and the descriptor that wakes the sender.
    Hello { token: u64 },
    /// The answer, with the descriptor that wakes the sender.
    Welcome,
    /// Memory that may be written to, with its file.
    Memory { key: u64, bytes: u64 },
    /// It may not any more.
    Forget { key: u64 },
}

impl Message {
    const WORDS: usize = 3;

    fn encode(self) -> [u64; Self::WORDS] {
        match self {
            Message::Hello { token } => [1, token, 0],
            Message::Welcome => [2, 0, 0],
            Message::Memory { key, bytes } => [3, key, bytes],
            Message::Forget { key } => [4, key, 0],
        }
    }

    fn decode(words: [u64; Self::WORDS]) -> Option<Message> {
        match words {
            [1, token, _] => Some(Message::Hello { token }),
            [2, ..] => Some(Message::Welcome),
            [3, key, bytes] => Some(Message::Memory { key, bytes }),
            [4, key, _] => Some(Message::Forget { key }),
            _ => None,
        }
    }
}

/// Room for the control message that carries descriptors.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn failed(what: &str) -> Error {
    Error(format!("{what}: {}", io::Error::last_os_error()))
}

/// A name in the abstract namespace as a socket address, and its length.
fn address(name: &[u8]) -> Option<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all fields may be zero.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let room = address.sun_path.get_mut(1..=name.len())?;
    for (into, from) in room.iter_mut().zip(name) {
        *into = *from as libc::c_char;
    }
    let length = std::mem::offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len();
    Some((address, libc::socklen_t::try_from(length).ok()?))
}

fn socket() -> Result<OwnedFd, Error> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: makes a descriptor.
    owned(unsafe { libc::socket(libc::AF_UNIX, kind, 0) }).ok_or_else(|| failed("socket"))
}

/// A descriptor that a call has made.
pub fn owned(descriptor: RawFd) -> Option<OwnedFd> {
    // SAFETY: the descriptor is new, and nobody else's.
    (descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Listens under a name.
pub fn listen(name: &[u8]) -> Result<OwnedFd, Error> {
    let socket = socket()?;
    let (address, length) = address(name).ok_or_else(|| Error(String::from("the name is too long")))?;
    // SAFETY: the address is as long as said.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    // SAFETY: a socket of this side.
    if bound < 0 || unsafe { libc::listen(socket.as_raw_fd(), 128) } < 0 {
        return Err(failed("listening"));
    }
    Ok(socket)
}

impl Channel {
    /// Connects to a name.
    pub fn connect(name: &[u8]) -> Result<Channel, Error> {
        let socket = socket()?;
        let (address, length) = address(name).ok_or_else(|| Error(String::from("the name is too long")))?;
        // SAFETY: the address is as long as said.
        if unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
            return Err(failed("connecting"));
        }
        Channel(socket).trusted().ok_or_else(|| Error(String::from("the peer is of another user")))
    }

    /// The next peer that has connected, if it is one to talk to.
    pub fn accept(listener: &OwnedFd) -> Option<Option<Channel>> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let (name, length) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: no address is asked for.
        let accepted = unsafe { libc::accept4(listener.as_raw_fd(), name, length, flags) };
        owned(accepted).map(|socket| Channel(socket).trusted())
    }

    /// The channel, if the process at the other end is of the same user, or root's.
    fn trusted(self) -> Option<Channel> {
        let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: 0 };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        let option = (&raw mut peer).cast();
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        // SAFETY: the option is as long as said.
        let status = unsafe { libc::getsockopt(self.0.as_raw_fd(), level, name, option, &mut length) };
        // SAFETY: asks for a number.
        let own = unsafe { libc::geteuid() };
        (status == 0 && (peer.uid == own || peer.uid == 0)).then_some(self)
    }

    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sends a message with descriptors; false when there is no room, or the peer is gone.
    pub fn send(&self, message: Message, descriptors: &[RawFd]) -> bool {
        let mut words = message.encode();
        let mut part = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&words) };
        let mut control = Control([0; 64]);
        // SAFETY: all fields may be zero.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        if let 1..=PASSED = descriptors.len() {
            let bytes = size_of_val(descriptors) as u32;
            header.msg_control = control.0.as_mut_ptr().cast();
            // SAFETY: arithmetic, and the room is aligned and larger than two descriptors with their header need.
            unsafe {
                header.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
                let first = &mut *libc::CMSG_FIRSTHDR(&header);
                first.cmsg_level = libc::SOL_SOCKET;
                first.cmsg_type = libc::SCM_RIGHTS;
                first.cmsg_len = libc::CMSG_LEN(bytes) as usize;
                let data = libc::CMSG_DATA(first).cast::<RawFd>();
                std::ptr::copy_nonoverlapping(descriptors.as_ptr(), data, descriptors.len());
            }
        }
        // SAFETY: the header's parts live until the call returns.
        let sent = unsafe { libc::sendmsg(self.0.as_raw_fd(), &header, libc::MSG_NOSIGNAL) };
        usize::try_from(sent).is_ok_and(|sent| sent == size_of_val(&words))
    }

    /// The next message.
    pub fn receive(&self) -> Received {
        let mut words = [0; Message::WORDS];
        let mut part = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&words) };
        let mut control = Control([0; 64]);
        // SAFETY: all fields may be zero.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len();
        // SAFETY: the header's parts live until the call returns.
        let got = unsafe { libc::recvmsg(self.0.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC) };
        if got < 0 {
            let error = io::Error::last_os_error().kind();
            let again = matches!(error, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            return if again { Received::Nothing } else { Received::End };
        }
        let mut descriptors = Vec::new();
        // SAFETY: the kernel has written the control message, whose length says how many descriptors there are; they
        // are new and this side's.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&header);
            if !first.is_null()
                && ((*first).cmsg_level, (*first).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
            {
                let bytes = (*first).cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(first).cast::<RawFd>();
                for index in 0..bytes / size_of::<RawFd>() {
                    descriptors.extend(owned(data.add(index).read_unaligned()));
                }
            }
        }
        let whole = usize::try_from(got).is_ok_and(|got| got == size_of_val(&words));
        match Message::decode(words).filter(|_| whole && header.msg_flags & libc::MSG_CTRUNC == 0) {
            Some(message) => Received::Message(message, descriptors),
            None => Received::End,
        }
    }
}
