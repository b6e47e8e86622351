//! A new agent takes the place of the running one: what is asked, what is got, and from when on it counts.
//!
//! The new agent connects to the running one as programs do and asks. It gets copies of the sockets that others connect to
//! and what the running agent knows of other hosts; the running one goes on as before until it hears that the new one has
//! everything and is able to work. Only then it brings its streams back to the kernel and ends, and the new one begins.
//! Whoever connects meanwhile waits in the sockets' queues; nobody is turned away. If the new agent dies before, nothing
//! has changed; afterwards streams are on the kernel, as without an agent.
//!
//! Not here: what the running agent does ([`super::hand_over`]).

use super::notify;
use convoy_runtime::agent::protocol::{Message, Part, Versions};
use convoy_runtime::agent::server::{Heard, Program};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// How long the running agent may take for each answer, and to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest text of [`Knowledge`] in bytes.
const LONGEST: usize = 1 << 20;

/// What an agent knows that its successor cannot find out by itself at once. Its meaning is that of
/// [`convoy_runtime::agent::protocol::STATE`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Knowledge {
    /// Of the command, for people.
    pub(super) version: String,
    pub(super) pid: u32,
    /// The address for questions by TCP, as it was asked for.
    pub(super) metrics: Option<SocketAddr>,
    /// Hosts with an agent.
    pub(super) hosts: Vec<IpAddr>,
}

/// What the running agent has handed over. It goes on until [`TakenOver::commit`].
pub(super) struct TakenOver {
    session: Program,
    pub(super) programs: OwnedFd,
    pub(super) agents: TcpListener,
    pub(super) status: UnixListener,
    pub(super) metrics: Option<TcpListener>,
    pub(super) knowledge: Knowledge,
}

/// The running agent, which ends now: to be waited for.
pub(super) struct Predecessor {
    session: Program,
    pid: u32,
}

/// Asks the agent that listens at `path` to hand over.
///
/// # Errors
/// A line: there is none, it does not answer, does not hand over, or is of another version.
pub(super) fn ask(path: &CStr) -> Result<TakenOver, String> {
    let session = Program::connect(path).map_err(|error| {
        format!("there is no agent to take over from at {}: {error}", path.to_string_lossy())
    })?;
    if session.uid != rustix::process::geteuid().as_raw() {
        return Err(format!("the running agent, process {}, is another user's", session.pid));
    }
    if !session.send(Message::TakeOver(Versions::OWN), None) {
        return Err("the running agent does not take messages".into());
    }
    let mut got = Parts::default();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match next(&session, deadline)? {
            (Message::Part(part), Some(descriptor)) => got.add(part, descriptor),
            (Message::AllParts(Versions::OWN), _) => return got.complete(session),
            (Message::AllParts(other) | Message::Refused(other), _) => return Err(mismatch(other)),
            _ => return Err("the running agent says something that makes no sense here".into()),
        }
    }
}

fn mismatch(other: Versions) -> String {
    let own = Versions::OWN;
    format!(
        "the running agent is of another version: its protocol is {} and its state {}, this one's {} and {}; end it and start \
         this one instead (streams go on over TCP meanwhile)",
        other.protocol, other.state, own.protocol, own.state
    )
}

/// The next message and its descriptor.
fn next(session: &Program, deadline: Instant) -> Result<(Message, Option<OwnedFd>), String> {
    loop {
        match session.receive() {
            Heard::Message(message, passed) => return Ok((message, passed.into_iter().next())),
            Heard::Nothing => wait(session, deadline)?,
            Heard::Nonsense(_) | Heard::End => {
                return Err(
                    "the running agent does not hand over: it is older, or just does so to another".into()
                );
            }
        }
    }
}

fn wait(session: &Program, deadline: Instant) -> Result<(), String> {
    let left = deadline.saturating_duration_since(Instant::now());
    let limit = Timespec::try_from(left).ok();
    match poll(&mut [PollFd::new(session, PollFlags::IN)], limit.as_ref()) {
        Ok(0) => Err(format!("the running agent, process {}, does not answer", session.pid)),
        // Interrupted: looked at again.
        _ => Ok(()),
    }
}

/// What has come so far.
#[derive(Default)]
struct Parts {
    programs: Option<OwnedFd>,
    agents: Option<OwnedFd>,
    status: Option<OwnedFd>,
    metrics: Option<OwnedFd>,
    knowledge: Option<OwnedFd>,
}

impl Parts {
    fn add(&mut self, part: Part, descriptor: OwnedFd) {
        let place = match part {
            Part::Programs => &mut self.programs,
            Part::Agents => &mut self.agents,
            Part::Status => &mut self.status,
            Part::Metrics => &mut self.metrics,
            Part::Knowledge => &mut self.knowledge,
        };
        *place = Some(descriptor);
    }

    fn complete(self, session: Program) -> Result<TakenOver, String> {
        let (Some(programs), Some(agents), Some(status), Some(knowledge)) =
            (self.programs, self.agents, self.status, self.knowledge)
        else {
            return Err("the running agent has not handed over everything".into());
        };
        Ok(TakenOver {
            session,
            programs,
            agents: agents.into(),
            status: status.into(),
            metrics: self.metrics.map(TcpListener::from),
            knowledge: read(knowledge)?,
        })
    }
}

fn read(file: OwnedFd) -> Result<Knowledge, String> {
    let file = File::from(file);
    let failed =
        |error: &dyn std::fmt::Display| format!("what the running agent knows cannot be read: {error}");
    let length = file.metadata().map_err(|error| failed(&error))?.len() as usize;
    let mut text = vec![0; length.min(LONGEST)];
    file.read_exact_at(&mut text, 0).map_err(|error| failed(&error))?;
    serde_json::from_slice(&text).map_err(|error| failed(&error))
}

impl TakenOver {
    /// From here on this agent is the one of this host; [`Predecessor::await_end`] before it begins.
    pub(super) fn commit(self) -> Predecessor {
        // Before the main process of the service ends.
        notify::main_process();
        // It may have ended by itself: that comes to the same.
        let _ = self.session.send(Message::Taken, None);
        Predecessor { session: self.session, pid: self.knowledge.pid }
    }
}

impl Predecessor {
    /// Waits until the agent has brought its streams back and ended. One that does not end is left to itself: programs
    /// give it up when it does not answer them.
    pub(super) fn await_end(self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.session.receive() {
                Heard::End => return,
                Heard::Nothing if wait(&self.session, deadline).is_err() => {
                    tracing::warn!(pid = self.pid, "the agent before this one does not end");
                    return;
                }
                _ => {}
            }
        }
    }
}
