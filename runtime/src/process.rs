//! Who a process is: its id together with its start time, so that a reused id is never taken for its predecessor.

use crate::sys;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicU64, Ordering};

/// A process: id in the upper half, low 32 bits of its start time (clock ticks since boot) in the lower.
/// 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(pub u64);

/// The identity of this process; 0 before [`remember`].
static OWN: AtomicU64 = AtomicU64::new(0);

impl Identity {
    pub const NOBODY: Self = Self(0);

    pub fn pid(self) -> i32 {
        (self.0 >> 32) as i32
    }

    /// Whether this very process still runs (a zombie does not).
    pub fn alive(self) -> bool {
        self.0 != 0 && read_start(self.pid()).is_some_and(|start| start == self.0 as u32)
    }
}

/// This process, as last remembered.
#[inline]
pub fn own() -> Identity {
    Identity(OWN.load(Ordering::Relaxed))
}

/// For [`crate::anchor`].
pub(crate) const fn anchored() -> &'static AtomicU64 {
    &OWN
}

/// Looks up who this process is; to be called at the first use and in the child after a fork.
pub fn remember() -> Identity {
    let pid = sys::getpid();
    let identity = Identity((pid as u64) << 32 | u64::from(read_start(pid).unwrap_or(0)));
    OWN.store(identity.0, Ordering::Relaxed);
    identity
}

/// Whether /proc calls this process what it calls itself: not where it shows another process namespace, or nothing. There
/// nobody's life could be told.
pub fn is_named_by_proc() -> bool {
    let mut link = [0u8; 16];
    let mut name = Text::<16>::new();
    let _ = write!(name, "{}", sys::getpid());
    sys::readlink(c"/proc/self", &mut link).is_ok_and(|length| &link[..length] == name.as_cstr().to_bytes())
}

/// Whether a process of this id exists and is not a zombie.
pub fn pid_alive(pid: i32) -> bool {
    read_start(pid).is_some()
}

/// Start time from /proc/PID/stat (proc(5), field 22), or nothing for a zombie or no such process.
fn read_start(pid: i32) -> Option<u32> {
    let mut path = Text::<32>::new();
    let _ = write!(path, "/proc/{pid}/stat");
    let mut buffer = [0u8; 512];
    let length = sys::read_file(path.as_cstr(), &mut buffer).ok()?;
    let text = buffer.get(..length)?;
    let after_name = text.iter().rposition(|&byte| byte == b')')? + 2;
    let mut fields = text.get(after_name..)?.split(|&byte| byte == b' ');
    let state = fields.next()?;
    // A process whose first thread has ended is a zombie by name only.
    let threads = fields.nth(16)?;
    if matches!(state.first(), Some(b'Z' | b'X' | b'x')) && matches!(threads, b"0" | b"1") {
        return None;
    }
    let start = fields.nth(1)?;
    let value = start.iter().try_fold(0u64, |value, &digit| {
        digit.is_ascii_digit().then(|| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })?;
    Some(value as u32)
}

/// A short text on the stack that always ends with a zero byte; what does not fit is cut.
pub struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    pub const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    /// The text for a system call.
    pub fn as_cstr(&self) -> &core::ffi::CStr {
        core::ffi::CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> core::fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = N - 1 - self.length;
        let taken = text.len().min(room);
        self.bytes[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        if taken == text.len() { Ok(()) } else { Err(core::fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_identity_is_alive_and_a_changed_start_is_not() {
        let own = remember();
        assert!(own.alive());
        assert!(!Identity(own.0 ^ 1).alive());
        assert!(!Identity::NOBODY.alive());
    }
}
