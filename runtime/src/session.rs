//! What a process joins at the first connection it might accelerate: the user's directory, the registry in it,
//! its page of counters. A program that makes no such connection never comes here.

use crate::api::Reason;
use crate::config;
use crate::lock::Mutex;
use crate::process::{self, Identity, Text};
use crate::registry::Registry;
use crate::shm::bell_page::BellPage;
use crate::socket::{self, State};
use crate::{agent, channel, close, demote, log, room, stats, sys, table};
use core::ffi::CStr;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

/// The joined state; made once per process, never freed.
pub struct Session {
    pub registry: &'static Registry,
    pub identity: Identity,
    /// The process's bells as its agent sees them, with the descriptor for the agent; nothing where no agent is wanted.
    pub bells: Option<(BellPage, i32)>,
    /// SO_NETNS_COOKIE of the network namespace in which the process joined: where its agent is.
    pub network: u64,
    prefix: Path,
}

crate::anchor::layout! {
    /// Where a session's fields lie.
    SessionLayout of Session { registry }
}

/// For [`crate::anchor`].
pub(crate) const fn anchored() -> &'static AtomicPtr<Session> {
    &CURRENT
}

pub type Path = Text<256>;

static CURRENT: AtomicPtr<Session> = AtomicPtr::new(core::ptr::null_mut());
static BELLS: Mutex<Option<(BellPage, i32)>> = Mutex::new(None);
/// Whether joining is not tried (again): all connections stay with the kernel.
static BARRED: AtomicU8 = AtomicU8::new(FREE);
const FREE: u8 = 0;
/// This process; a child tries for itself.
const PROCESS: u8 = 1;
/// This process and its children.
const FAMILY: u8 = 2;
/// Guards joining, promotion and the end of sockets; taken by fork.
pub static SLOW: Mutex<()> = Mutex::new(());

/// The session, if this process has joined.
#[inline]
pub fn current() -> Option<&'static Session> {
    // SAFETY: set once to a leaked box, or null.
    unsafe { CURRENT.load(Ordering::Acquire).as_ref() }
}

/// Joins unless done; the caller holds [`SLOW`]. `network` is the namespace of the connection that is the reason.
pub fn join(network: u64) -> Option<&'static Session> {
    if is_barred() {
        return None;
    }
    if let Some(session) = current() {
        return Some(session);
    }
    match open(network).and_then(room::boxed) {
        Ok(session) => {
            CURRENT.store(Box::into_raw(session), Ordering::Release);
            current()
        }
        Err(errno) => {
            BARRED.store(PROCESS, Ordering::Relaxed);
            // Without a name of its own there is nothing for the user to mend.
            if errno != libc::ESRCH {
                let directory = config::settings().directory.to_string_lossy();
                let reason = log::Reason(errno);
                crate::log_warn!("cannot use {directory}: {reason}: connections stay with the kernel");
            }
            None
        }
    }
}

/// Forgets the parent's session: the child joins again under its own identity when it needs to.
pub fn after_fork_in_child() {
    CURRENT.store(core::ptr::null_mut(), Ordering::Release);
    let _ = BARRED.compare_exchange(PROCESS, FREE, Ordering::Relaxed, Ordering::Relaxed);
    process::remember();
}

fn open(network: u64) -> sys::Answer<Session> {
    let identity = process::remember();
    if !process::is_named_by_proc() {
        return Err(libc::ESRCH);
    }
    let prefix = directory()?;
    let session_path = |suffix: &str| join_path(&prefix, suffix);
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW;
    let registry = sys::with_open(session_path("registry").as_cstr(), flags, 0o600, Registry::open)?;
    let mut page = session_path("stats.");
    let _ = write!(page, "{}", identity.pid());
    if let Err(errno) = stats::publish(page.as_cstr()) {
        crate::log_warn!("counters cannot be read from outside: {}", log::Reason(errno));
    }
    let registry = registry?;
    channel::register();
    registry.add_cpus(&sys::usable_cpus());
    Ok(Session { registry, identity, bells: bells(), network, prefix })
}

/// The page of bells, made before any thread sleeps: the counts in it are complete from the first on. Children have
/// that of their parent, because bells differ in their numbers, and agents know it.
fn bells() -> Option<(BellPage, i32)> {
    let known = *BELLS.lock();
    if known.is_some() || !agent::wanted() {
        return known;
    }
    let _hand = sys::hand();
    let (page, fd) = BellPage::create().ok()?;
    let made = Some((page, table::adopt(fd).ok()?));
    *BELLS.lock() = made;
    made
}

/// The user's directory, made and checked: owned by this user, closed to others; then the scope, so that
/// process ids mean the same to all who meet there.
fn directory() -> sys::Answer<Path> {
    let user = sys::geteuid();
    let base = config::settings().directory.to_str().map_err(|_| libc::EINVAL)?;
    let mut path = Path::new();
    write!(path, "{base}/convoy-{user}").map_err(|_| libc::ENAMETOOLONG)?;
    match sys::mkdir(path.as_cstr(), 0o700) {
        Ok(()) | Err(libc::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_PATH;
    let stat = sys::with_open(path.as_cstr(), flags, 0, sys::fstat)??;
    if stat.st_uid != user || stat.st_mode & 0o077 != 0 {
        return Err(libc::EPERM);
    }
    let _ = write!(path, "/{}-{:x}", pid_namespace(), Registry::LAYOUT);
    Ok(path)
}

fn pid_namespace() -> u64 {
    let mut link = [0u8; 64];
    let length = sys::readlink(c"/proc/self/ns/pid", &mut link).unwrap_or(0);
    let digits = link.iter().take(length).filter(|byte| byte.is_ascii_digit());
    digits.fold(0u64, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}

fn join_path(prefix: &Path, suffix: &str) -> Path {
    let mut path = Path::new();
    let _ = write!(path, "{}.{suffix}", prefix.as_cstr().to_str().unwrap_or_default());
    path
}

impl Session {
    /// Path of a bell's FIFO.
    pub fn bell_path(&self, number: u16) -> Path {
        let mut path = join_path(&self.prefix, "bell.");
        let _ = write!(path, "{number}");
        path
    }

    /// Opens a descriptor of another process of this user for as long as `work` takes.
    pub fn with_open_of<T>(peer: Identity, fd: i32, work: impl FnOnce(i32) -> T) -> sys::Answer<T> {
        let mut path = Text::<48>::new();
        let _ = write!(path, "/proc/{}/fd/{fd}", peer.pid());
        sys::with_open(as_cstr(&path), libc::O_RDWR, 0, work)
    }
}

fn as_cstr<const N: usize>(path: &Text<N>) -> &CStr {
    path.as_cstr()
}

/// The process is about to become somebody else, or another process namespace is to be its children's: it makes no new
/// streams, and those it has go back to the kernel, because it could no longer find its peers and their bells.
pub fn before_identity_change() {
    if current().is_some() {
        BARRED.fetch_max(PROCESS, Ordering::SeqCst);
        leave_streams(|_| ());
    }
}

/// The process is about to leave the root directory under which it finds the registry and /proc. For
/// [`after_failed_chroot`], gives what was before.
pub fn before_chroot() -> u8 {
    let before = BARRED.swap(FAMILY, Ordering::SeqCst);
    leave_streams(|_| ());
    before
}

/// It has not left.
pub fn after_failed_chroot(before: u8) {
    BARRED.store(before, Ordering::SeqCst);
}

/// Whether no stream may begin (any more).
pub fn is_barred() -> bool {
    BARRED.load(Ordering::SeqCst) != FREE
}

/// Everything goes back to the kernel; no stream begins meanwhile, because the caller has seen to that ([`is_barred`]). Tells which
/// sockets could not go back.
pub fn leave_streams(mut staying: impl FnMut(u32)) {
    {
        // Whoever promotes has finished, or will see that it must not.
        let _slow = SLOW.lock();
        agent::failover::end_all();
    }
    for (index, socket) in socket::all() {
        while socket.state() == State::Moving {
            sys::sched_yield();
        }
        if socket.state() == State::Promoted
            && !demote::demote(socket.fd.load(Ordering::Relaxed), Reason::Identity)
        {
            staying(index);
        }
        close::withdraw_offer(socket);
        agent::withdraw(index, socket);
    }
}
